//go:build k8s

package k8s

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/heddle-mesh/heddle/identity/ca"
)

// TestRootRotation replaces the mesh's own root under a load: both are trusted, the new one
// signs, the old one is forgotten. A pod from before, of which nothing is left but what it
// was made with, comes back after it.
func TestRootRotation(t *testing.T) {
	if out, err := install(t.Context(), "--set", "svidTTL=30s"); err != nil {
		t.Fatalf("install: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := install(context.WithoutCancel(t.Context())); err != nil {
			t.Errorf("install: %v: %s", err, out)
		}
	})
	ns := namespace(t, true)
	// The caller has a service, so that its certificate can be seen.
	apply(t, ns, server("web", 2, "")+"---"+server("old", 1, "")+"---"+client("caller")+`
---
apiVersion: v1
kind: Service
metadata: {name: caller}
spec: {selector: {app: caller}, ports: [{port: 9999}]}
`)
	ready(t, ns, "deployment/web", "deployment/old", "pod/caller")
	before := showRoots(t)
	if len(before) != 1 || before[0].Role != "signing" {
		t.Fatalf("before: %+v", before)
	}
	l := startLoad(t, ns, "caller", "http://web/", 100)

	t.Log("a root that cannot be read, and one that nobody knows")
	root := secretOfRoot(t)
	t.Cleanup(func() {
		if t.Failed() { // other tests need one that is good
			patchRoot(t, map[string]*string{"root.pem": ptr(root["root.pem"]), "root-next.pem": nil, "root-old.pem": nil, "root-links.pem": nil})
		}
	})
	patchRoot(t, map[string]*string{"root-next.pem": ptr("noise")})
	said(t, "root certificate in Secret heddle-system/heddle-root: read root root-next.pem: the first PEM block is not a certificate", 2)
	patchRoot(t, map[string]*string{"root-next.pem": nil, "root.pem": ptr(strangeRoot(t))})
	said(t, "the root in root.pem is not one that heddle ca rotate prepared", 2)
	patchRoot(t, map[string]*string{"root.pem": ptr(root["root.pem"])})
	if now := showRoots(t); len(now) != 1 || now[0].Fingerprint != before[0].Fingerprint {
		t.Fatalf("bad roots were taken: %+v", now)
	}

	if out, err := runHeddle(t, "ca", "rotate"); err != nil || !strings.Contains(out, "signs from") {
		t.Fatalf("heddle ca rotate: %v: %s", err, out)
	}
	both := showRoots(t)
	if len(both) != 2 || both[0].Fingerprint != before[0].Fingerprint || both[1].Role != "prepared" {
		t.Fatalf("after heddle ca rotate: %+v", both)
	}
	kubectl(t, "-n", ns, "rollout", "restart", "deployment/web")
	ready(t, ns, "deployment/web")
	awaitRoots(t, "the new root signs", both[1].Fingerprint+" signing", both[0].Fingerprint+" former")
	signed := rootCertificate(t)
	// All of them: one that the old root still signs is refused by who knows only the new one.
	for pod, port := range map[string]string{podOf(t, ns, "web"): "8080", podOf(t, ns, "old"): "8080", "caller": "9999"} {
		eventually(t, pod+" is signed by the new root", func() (string, bool) {
			err := shown(t, ns, pod, port)[1].CheckSignatureFrom(signed)
			return fmt.Sprint(err), err == nil
		})
	}
	kubectl(t, "-n", ns, "rollout", "restart", "deployment/web")
	ready(t, ns, "deployment/web")

	// An SVID's life and what clocks may differ is ten minutes and more: say it has passed.
	former := regexp.MustCompile(`Replaced: \S+`).ReplaceAllString(secretOfRoot(t)["root-old.pem"], "Replaced: "+time.Now().Add(-time.Hour).UTC().Format(time.RFC3339))
	patchRoot(t, map[string]*string{"root-old.pem": &former})
	awaitRoots(t, "the old root is forgotten", both[1].Fingerprint+" signing")
	kubectl(t, "-n", ns, "rollout", "restart", "deployment/web")
	ready(t, ns, "deployment/web")

	pod := podOf(t, ns, "old")
	if given := kubectl(t, "-n", ns, "get", "pod", pod, "-o", `jsonpath={.spec.initContainers[?(@.name=="heddle-proxy")].env[?(@.name=="HEDDLE_ROOTS")].value}`); given != before[0].Fingerprint {
		t.Fatalf("the pod from before was given %s", given)
	}
	for _, how := range []string{"with what it remembers", "with nothing, as after a restart of its node"} {
		t.Log("a sidecar restarts", how)
		if strings.HasPrefix(how, "with nothing") {
			forget(t, ns, pod)
		}
		n := restarts(t, ns, "pod/"+pod)
		killProxy(t, ns, pod)
		eventually(t, "the sidecar is back "+how, func() (string, bool) {
			a := get(t, ns, "caller", "http://old/")
			return fmt.Sprintf("%+v", a), a.Code == 200 && restarts(t, ns, "pod/"+pod) > n
		})
	}
	l.unharmed()
}

// rootShown is what heddle ca show says of a root.
type rootShown struct{ Fingerprint, Role string }

func showRoots(t *testing.T) []rootShown {
	t.Helper()
	out, err := runHeddle(t, "ca", "show", "-o", "json")
	var list struct{ Items []rootShown }
	if err == nil {
		err = json.Unmarshal([]byte(out), &list)
	}
	if err != nil {
		t.Fatalf("heddle ca show: %v: %s", err, out)
	}
	return list.Items
}

func awaitRoots(t *testing.T, what string, want ...string) {
	t.Helper()
	// An SVID's life, a minute for all replicas, and whatever things take.
	within(t, 2*time.Minute+patience, what, func() (string, bool) {
		var got []string
		for _, r := range showRoots(t) {
			got = append(got, r.Fingerprint+" "+r.Role)
		}
		return strings.Join(got, ", "), strings.Join(got, ", ") == strings.Join(want, ", ")
	})
}

// secretOfRoot is what the Secret with the root has.
func secretOfRoot(t *testing.T) map[string]string {
	t.Helper()
	var secret struct{ Data map[string][]byte }
	if err := json.Unmarshal([]byte(kubectl(t, "-n", "heddle-system", "get", "secret", "heddle-root", "-o", "json")), &secret); err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for key, value := range secret.Data {
		out[key] = string(value)
	}
	return out
}

// patchRoot changes keys of the Secret; nil removes one.
func patchRoot(t *testing.T, data map[string]*string) {
	t.Helper()
	encoded := map[string]*string{}
	for key, value := range data {
		encoded[key] = nil
		if value != nil {
			encoded[key] = ptr(base64.StdEncoding.EncodeToString([]byte(*value)))
		}
	}
	patch, err := json.Marshal(map[string]any{"data": encoded})
	if err != nil {
		t.Fatal(err)
	}
	kubectl(t, "-n", "heddle-system", "patch", "secret", "heddle-root", "--type=merge", "-p", string(patch))
}

// strangeRoot is a good root that another mesh of the same trust domain made.
func strangeRoot(t *testing.T) string {
	t.Helper()
	config := ca.DefaultConfig()
	config.TrustDomain = "mesh.local"
	dir := filepath.Join(t.TempDir(), "ca")
	if _, err := ca.Open(dir, config); err != nil {
		t.Fatal(err)
	}
	files, err := ca.ReadFiles(dir)
	if err != nil {
		t.Fatal(err)
	}
	return string(files["root.pem"])
}

func ptr(s string) *string { return &s }

// rootCertificate is that of the root in the Secret.
func rootCertificate(t *testing.T) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode([]byte(secretOfRoot(t)["root.pem"]))
	if block == nil {
		t.Fatal("no PEM in root.pem")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// shown are the certificates that a pod shows on a port; they are looked at and not relied on.
func shown(t *testing.T, ns, pod, port string) []*x509.Certificate {
	t.Helper()
	ip := kubectl(t, "-n", ns, "get", "pod", pod, "-o", "jsonpath={.status.podIP}")
	raw, err := c.Dial(t.Context(), "tcp", net.JoinHostPort(ip, port))
	if err != nil {
		t.Fatal(err)
	}
	conn := tls.Client(raw, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13})
	defer conn.Close()
	if err := conn.HandshakeContext(t.Context()); err != nil {
		t.Fatalf("%s: %v", pod, err)
	}
	return conn.ConnectionState().PeerCertificates
}

// forget removes what a sidecar keeps for its restarts.
func forget(t *testing.T, ns, pod string) {
	t.Helper()
	uid := kubectl(t, "-n", ns, "get", "pod", pod, "-o", "jsonpath={.metadata.uid}")
	dir := "/var/lib/kubelet/pods/" + uid + "/volumes/kubernetes.io~empty-dir/heddle-run"
	node := containerOf(t, ns, pod, "heddle-proxy").node
	if found := onNode(t, node, "find", dir, "-name", "svid.json"); !strings.Contains(found, "svid.json") {
		t.Fatalf("no SVID in %s: %s", dir, found)
	}
	onNode(t, node, "find", dir, "-name", "svid.json", "-delete")
}
