//go:build k8s

package webhook

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"

	"github.com/heddle-mesh/heddle/discovery/kubernetes/kubetest"
	"github.com/heddle-mesh/heddle/discovery/manifest"
	chart "github.com/heddle-mesh/heddle/install/kubernetes"
	"github.com/heddle-mesh/heddle/integration/kubernetes"
	"github.com/heddle-mesh/heddle/integration/kubernetes/inject"
)

type m = map[string]any

// server is the API server of all tests of the package; each has a revision of its own.
var server *kubetest.Server

func TestMain(m *testing.M) {
	os.Exit(kubetest.Main(func(s *kubetest.Server) int {
		server = s
		return m.Run()
	}))
}

// patience is how long anything may take that a test waits for.
const patience = 30 * time.Second

func do(t *testing.T, method, path string, body, into any) {
	t.Helper()
	if err := server.Do(t.Context(), method, path, body, into); err != nil {
		t.Fatal(err)
	}
}

// await asks again until there is no error.
func await(t *testing.T, what string, try func() error) {
	t.Helper()
	deadline := time.After(patience)
	for {
		err := try()
		if err == nil {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("%s: %v", what, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// replica is a webhook server of a revision, and the place where it listens.
type replica struct {
	*Server
	listener net.Listener
	revision string
	sidecars *atomic.Pointer[inject.Config]
}

// change changes what sidecars get from now on.
func (r *replica) change(f func(*inject.Config)) {
	c := *r.sidecars.Load()
	f(&c)
	r.sidecars.Store(&c)
}

// render gives the objects of the chart for a revision.
func render(t *testing.T, revision string) []*unstructured.Unstructured {
	t.Helper()
	values, err := chart.DefaultValues()
	if err != nil {
		t.Fatal(err)
	}
	values["revision"] = revision
	objects, err := chart.Render(chart.Namespace, values)
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

// grant lets the control plane of a revision do what the chart lets it do, and no more.
func grant(t *testing.T, revision string) {
	t.Helper()
	count := 0
	for _, o := range render(t, revision) {
		if o.GroupVersionKind().Group != "rbac.authorization.k8s.io" {
			continue
		}
		count++
		path := "/apis/rbac.authorization.k8s.io/v1/"
		if o.GetNamespace() != "" {
			path += "namespaces/" + o.GetNamespace() + "/"
		}
		err := server.Do(t.Context(), http.MethodPost, path+strings.ToLower(o.GetKind())+"s", o.Object, nil)
		if err != nil && !strings.Contains(err.Error(), "AlreadyExists") {
			t.Fatal(err)
		}
	}
	if count == 0 {
		t.Fatal("the chart grants nothing")
	}
}

// newReplica makes a server that the API server of the tests can reach, with the rights of
// the chart. It does not serve yet.
func newReplica(t *testing.T, revision string, tune ...func(*rest.Config)) *replica {
	t.Helper()
	suffix := ""
	if revision != inject.DefaultRevision {
		suffix = "-" + revision
	}
	namespace(t, chart.Namespace, nil)
	grant(t, revision)
	user, err := server.User("system:serviceaccount:" + chart.Namespace + ":heddle-controlplane" + suffix)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range tune {
		f(user)
	}
	client, err := kubernetes.NewClient(user)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	c := inject.DefaultConfig()
	c.Image, c.Revision, c.TrustDomain, c.Roots = "heddle.local/heddle:dev", revision, "shop.example", []string{strings.Repeat("0a", 32)}
	sidecars := new(atomic.Pointer[inject.Config])
	sidecars.Store(&c)
	return &replica{listener: l, revision: revision, sidecars: sidecars, Server: New(Config{
		Client: client, Namespace: chart.Namespace, Service: "heddle-controlplane" + suffix, Hosts: []string{"127.0.0.1"},
		Secret: "heddle-webhook" + suffix, Injector: "heddle-injector" + suffix, Validator: "heddle-validator" + suffix,
		Inject: func() inject.Config { return *sidecars.Load() }, Options: manifest.Options{TrustDomain: "shop.example"}, Log: slog.New(slog.DiscardHandler),
	})}
}

// configure applies the webhook configurations of the chart, with the address of the
// replica in the place of the Service, for which there is no network here.
func (r *replica) configure(t *testing.T) {
	t.Helper()
	for _, o := range render(t, r.revision) {
		if !strings.HasSuffix(o.GetKind(), "WebhookConfiguration") {
			continue
		}
		hooks, _, _ := unstructured.NestedSlice(o.Object, "webhooks")
		for _, hook := range hooks {
			client := hook.(m)["clientConfig"].(m)
			client["url"] = "https://" + r.listener.Addr().String() + client["service"].(m)["path"].(string)
			delete(client, "service")
		}
		o.Object["webhooks"] = hooks
		path := "/apis/admissionregistration.k8s.io/v1/" + strings.ToLower(o.GetKind()) + "s"
		do(t, http.MethodPost, path, o.Object, nil)
		t.Cleanup(func() {
			if err := server.Do(context.Background(), http.MethodDelete, path+"/"+o.GetName(), nil, nil); err != nil {
				t.Error(err)
			}
		})
	}
}

// start serves until the test ends.
func (r *replica) start(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.serve(ctx, r.listener) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// running is a replica that injects: the API server knows its certificate.
func running(t *testing.T, revision string, tune ...func(*rest.Config)) *replica {
	t.Helper()
	r := newReplica(t, revision, tune...)
	r.configure(t)
	r.start(t)
	r.awaitTrust(t)
	return r
}

// awaitTrust waits until the API server calls the replica.
func (r *replica) awaitTrust(t *testing.T) {
	t.Helper()
	ns := namespace(t, "trust-"+r.revision, m{inject.InjectLabel: "enabled", inject.RevisionLabel: r.revision})
	await(t, "the API server trusts the webhook", func() error {
		pod, err := create(t, ns, plainPod("a"), true)
		if err == nil && !inject.HasSidecar(pod) {
			err = fmt.Errorf("the pod has no sidecar")
		}
		return err
	})
}

// namespace makes a namespace, or labels it anew.
func namespace(t *testing.T, name string, labels m) string {
	t.Helper()
	body := m{"apiVersion": "v1", "kind": "Namespace", "metadata": m{"name": name, "labels": labels}}
	if err := server.Do(t.Context(), http.MethodPost, "/api/v1/namespaces", body, nil); err != nil && !strings.Contains(err.Error(), "AlreadyExists") {
		t.Fatal(err)
	}
	return name
}

// create makes a pod and gives it as the API server has it then.
func create(t *testing.T, ns string, pod m, dry bool) (*corev1.Pod, error) {
	t.Helper()
	if spec := pod["spec"].(m); spec["serviceAccountName"] == nil {
		spec["serviceAccountName"] = "default" // the plugin that does this is off, for want of accounts
	}
	path := "/api/v1/namespaces/" + ns + "/pods?fieldValidation=Strict"
	if dry {
		path += "&dryRun=All"
	}
	out := new(corev1.Pod)
	return out, server.Do(t.Context(), http.MethodPost, path, pod, out)
}

func plainPod(name string) m {
	return m{"apiVersion": "v1", "kind": "Pod", "metadata": m{"name": name},
		"spec": m{"containers": []any{m{"name": "app", "image": "app", "readinessProbe": m{"httpGet": m{"path": "/r", "port": 80}}}}}}
}

// asJSON is a value for messages.
func asJSON(v any) string {
	data, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(data)
}
