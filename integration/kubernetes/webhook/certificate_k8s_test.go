//go:build k8s

package webhook

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"

	chart "github.com/heddle-mesh/heddle/install/kubernetes"
	"github.com/heddle-mesh/heddle/integration/kubernetes/inject"
)

// TestReplicasShareOne: of replicas that start together each gets the same certificate.
func TestReplicasShareOne(t *testing.T) {
	var wg sync.WaitGroup
	found := make([]*certificate, 8)
	for i := range found {
		r := newReplica(t, "share")
		wg.Go(func() {
			var err error
			if found[i], err = r.store.ensure(t.Context(), time.Now()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for i, c := range found {
		if c == nil || !c.same(found[0]) || !bytes.Equal(c.bundle, found[0].bundle) {
			t.Fatalf("replica %d has another certificate than replica 0", i)
		}
	}
}

// TestGarbledSecret: a Secret that somebody has spoilt, in any of its parts, is made anew.
func TestGarbledSecret(t *testing.T) {
	r := newReplica(t, "garbled")
	path := "/api/v1/namespaces/" + chart.Namespace + "/secrets/heddle-webhook-garbled"
	last, err := r.store.ensure(t.Context(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{certKey, keyKey, bundleKey} {
		for _, value := range [][]byte{nil, []byte("noise")} {
			do(t, http.MethodPatch, path, m{"data": m{key: value}}, nil)
			next, err := r.store.ensure(t.Context(), time.Now())
			if err != nil {
				t.Fatalf("%s is %q: %v", key, value, err)
			}
			if next.same(last) {
				t.Errorf("%s is %q: the certificate is still used", key, value)
			}
			last = next
		}
	}
}

// TestRotation: a certificate is replaced at two thirds of its life, and at no moment does
// the API server meet one that it does not know: first it learns the CA, then the replicas
// show the certificate, each of them.
func TestRotation(t *testing.T) {
	start := time.Now().Add(-certificateLife*2/3 - time.Hour) // so that it is due now
	a, b := newReplica(t, "rotate"), newReplica(t, "rotate")
	a.configure(t)
	step := func(r *replica, now time.Time) {
		t.Helper()
		if err := r.step(t.Context(), now); err != nil {
			t.Fatal(err)
		}
	}
	step(a, start)
	step(b, start)
	first := a.current.Load()
	if !b.current.Load().same(first) {
		t.Fatal("two replicas, two certificates")
	}
	a.startHandler(t)
	a.awaitTrust(t)

	now := time.Now()
	step(a, now) // makes the next, and shows the old
	second, err := b.store.ensure(t.Context(), now)
	if err != nil || second.same(first) {
		t.Fatalf("not replaced: %v", err)
	}
	step(b, now)
	for name, r := range map[string]*replica{"a": a, "b": b} {
		if !r.current.Load().same(first) {
			t.Errorf("replica %s shows the new certificate at once", name)
		}
	}
	for _, bundle := range bundles(t, "rotate") {
		if got := certificates(t, bundle); len(got) != 2 || !signed(got[0], second) || !signed(got[1], first) {
			t.Fatalf("the configuration has %d CAs; want the new and the old", len(got))
		}
	}
	a.awaitTrust(t) // the old one goes on

	step(a, now.Add(settle))
	step(b, now.Add(settle))
	for name, r := range map[string]*replica{"a": a, "b": b} {
		if !r.current.Load().same(second) {
			t.Errorf("replica %s still shows the old certificate", name)
		}
	}
	a.awaitTrust(t)

	// Once more, with its time: the first CA goes.
	later := second.renewAt()
	step(a, later)
	for _, bundle := range bundles(t, "rotate") {
		if got := certificates(t, bundle); len(got) != 2 || signed(got[0], first) || signed(got[1], first) {
			t.Error("the first CA is still in the configuration")
		}
	}
	// A replica that could not reach the API server until its own has run out does not wait.
	step(b, second.serving.Leaf.NotAfter.Add(time.Second))
	if b.current.Load().same(second) {
		t.Error("an expired certificate is shown on")
	}
}

// TestConfigurationAppliedAnew: who applies the configurations without our CA has it back,
// and what else they say stays.
func TestConfigurationAppliedAnew(t *testing.T) {
	r := running(t, "anew")
	path := "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/heddle-injector-anew"
	var config admissionregistrationv1.MutatingWebhookConfiguration
	do(t, http.MethodGet, path, nil, &config)
	for i := range config.Webhooks {
		config.Webhooks[i].ClientConfig.CABundle = nil
		seconds := int32(7)
		config.Webhooks[i].TimeoutSeconds = &seconds
	}
	do(t, http.MethodPut, path, config, nil)
	if err := r.announce(t.Context(), r.current.Load().bundle); err != nil {
		t.Fatal(err)
	}
	do(t, http.MethodGet, path, nil, &config)
	for _, w := range config.Webhooks {
		if !bytes.Equal(w.ClientConfig.CABundle, r.current.Load().bundle) || *w.TimeoutSeconds != 7 {
			t.Errorf("webhook %s has another CA or another timeout: %d", w.Name, *w.TimeoutSeconds)
		}
	}
	before := config.ResourceVersion
	if err := r.announce(t.Context(), r.current.Load().bundle); err != nil {
		t.Fatal(err)
	}
	do(t, http.MethodGet, path, nil, &config)
	if config.ResourceVersion != before {
		t.Error("the configuration is written though it is right")
	}
}

// TestServerGone: with failurePolicy Fail no pod of the mesh starts without its sidecar; the
// others are made, and so are all of them again with the server.
func TestServerGone(t *testing.T) {
	r := newReplica(t, "gone")
	r.configure(t)
	on := namespace(t, "gone-on", m{inject.InjectLabel: "enabled", inject.RevisionLabel: "gone"})
	off := namespace(t, "gone-off", nil)
	if _, err := create(t, on, plainPod("a"), true); err == nil {
		t.Error("a pod of the mesh was made without the webhook")
	}
	for _, ns := range []string{off, "kube-system", chart.Namespace} {
		if _, err := create(t, ns, plainPod("a"), true); err != nil {
			t.Errorf("a pod of namespace %s: %v", ns, err)
		}
	}
	r.start(t)
	await(t, "the webhook is back", func() error {
		_, err := create(t, on, plainPod("a"), true)
		return err
	})
}

// startHandler serves the replica's certificate and calls, and leaves steps to the test.
func (r *replica) startHandler(t *testing.T) {
	t.Helper()
	s := &httptest.Server{Listener: r.listener, Config: &http.Server{Handler: r.handler()}}
	// httptest has a certificate of its own, but asks this first.
	s.TLS = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		return r.current.Load().serving, nil
	}}
	s.Config.SetKeepAlivesEnabled(false) // each call is a handshake
	l := tls.NewListener(r.listener, s.TLS)
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Config.Serve(l)
	}()
	t.Cleanup(func() {
		s.Config.Close()
		<-done
	})
}

// bundles are the CAs in the configurations of a revision.
func bundles(t *testing.T, revision string) [][]byte {
	t.Helper()
	var mutating admissionregistrationv1.MutatingWebhookConfiguration
	var validating admissionregistrationv1.ValidatingWebhookConfiguration
	do(t, http.MethodGet, "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/heddle-injector-"+revision, nil, &mutating)
	do(t, http.MethodGet, "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/heddle-validator-"+revision, nil, &validating)
	var out [][]byte
	for _, w := range mutating.Webhooks {
		out = append(out, w.ClientConfig.CABundle)
	}
	for _, w := range validating.Webhooks {
		out = append(out, w.ClientConfig.CABundle)
	}
	return out
}

func certificates(t *testing.T, bundle []byte) []*x509.Certificate {
	t.Helper()
	var out []*x509.Certificate
	for {
		var b *pem.Block
		if b, bundle = pem.Decode(bundle); b == nil {
			return out
		}
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, c)
	}
}

func signed(ca *x509.Certificate, c *certificate) bool {
	return c.serving.Leaf.CheckSignatureFrom(ca) == nil
}

func pemOf(s *httptest.Server) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
}

// TestSecretIsOurs: the certificate's key is in the Secret and nowhere else.
func TestSecretIsOurs(t *testing.T) {
	r := newReplica(t, "secret")
	if _, err := r.store.ensure(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	var secret corev1.Secret
	do(t, http.MethodGet, "/api/v1/namespaces/"+chart.Namespace+"/secrets/heddle-webhook-secret", nil, &secret)
	if len(secret.Data) != 3 || bytes.Contains(secret.Data[bundleKey], []byte("PRIVATE")) || bytes.Contains(secret.Data[certKey], []byte("PRIVATE")) {
		t.Errorf("the Secret has %d keys", len(secret.Data))
	}
}
