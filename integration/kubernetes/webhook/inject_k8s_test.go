//go:build k8s

package webhook

import (
	"crypto/tls"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/heddle-mesh/heddle/integration/kubernetes/inject"
)

// TestSelection: for every combination of labels the API server asks the right revision,
// and none of the two is passed over.
func TestSelection(t *testing.T) {
	running(t, inject.DefaultRevision)
	running(t, "canary")
	i, rev := inject.InjectLabel, inject.RevisionLabel
	for _, c := range []struct {
		name    string
		ns, pod m
		want    string // revision
	}{
		{"nothing", nil, nil, ""},
		{"on", m{i: "enabled"}, nil, "default"},
		{"off", m{i: "disabled"}, nil, ""},
		{"pod-on", nil, m{i: "enabled"}, "default"},
		{"pod-on-ns-off", m{i: "disabled"}, m{i: "enabled"}, "default"},
		{"pod-off", m{i: "enabled"}, m{i: "disabled"}, ""},
		{"canary", m{i: "enabled", rev: "canary"}, nil, "canary"},
		{"canary-only", m{rev: "canary"}, nil, ""},
		{"canary-pod-on", m{rev: "canary"}, m{i: "enabled"}, "canary"},
		{"canary-pod-off", m{i: "enabled", rev: "canary"}, m{i: "disabled"}, ""},
		{"pod-of-canary", m{i: "enabled"}, m{rev: "canary"}, "canary"},
		{"pod-on-of-canary", nil, m{i: "enabled", rev: "canary"}, "canary"},
		{"pod-of-default-in-canary", m{i: "enabled", rev: "canary"}, m{rev: "default"}, "default"},
		{"named-default", m{i: "enabled", rev: "default"}, nil, "default"},
		{"named-default-pod-on", m{rev: "default"}, m{i: "enabled"}, "default"},
		{"pod-of-canary-off", m{i: "disabled"}, m{rev: "canary"}, ""},
		{"kube-system", m{i: "enabled"}, m{i: "enabled"}, ""},
		{"heddle-system", nil, m{i: "enabled"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			ns := c.name
			if !strings.HasSuffix(ns, "-system") {
				ns = namespace(t, "select-"+c.name, c.ns)
			}
			in := plainPod("a")
			in["metadata"].(m)["labels"] = c.pod
			pod, err := create(t, ns, in, true)
			if err != nil {
				t.Fatal(err)
			}
			if got := pod.Annotations[inject.Injected]; got != c.want || inject.HasSidecar(pod) != (c.want != "") {
				t.Errorf("injected by %q, want %q", got, c.want)
			}
		})
	}
}

// TestGoldenPods sends every workload of the offline goldens through the webhook: the API
// server takes it, strictly, and has the same pod then as where heddle inject was used.
func TestGoldenPods(t *testing.T) {
	r := running(t, inject.DefaultRevision)
	// Roots and trust domain are those of the goldens.
	r.change(func(c *inject.Config) { c.Roots = []string{strings.Repeat("0a", 32), strings.Repeat("1b", 32)} })
	namespace(t, "golden-on", m{inject.InjectLabel: "enabled"})
	namespace(t, "golden-off", nil)
	do(t, http.MethodPost, "/apis/scheduling.k8s.io/v1/priorityclasses", m{"metadata": m{"name": "golden"}, "value": 1}, nil)
	files, err := filepath.Glob("../inject/testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no goldens: %v", err)
	}
	count := 0
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".txtar")
		if name == "unknown-fields" || name == "restricted" {
			continue // fields that this API server refuses, and another configuration
		}
		archive, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		texts := map[string][]byte{}
		for _, f := range archive.Files {
			texts[f.Name] = f.Data
		}
		if texts["output.yaml"] == nil {
			continue // errors
		}
		before, after := pods(t, texts["input.yaml"]), pods(t, texts["output.yaml"])
		for i, in := range before {
			if i >= len(after) || asJSON(in) == asJSON(after[i]) {
				continue // not injected offline, by namespaces that are not these
			}
			count++
			t.Run(name, func(t *testing.T) {
				online, err := create(t, "golden-on", in, true)
				if err != nil {
					t.Fatalf("through the webhook: %v", err)
				}
				offline, err := create(t, "golden-off", without(after[i]), true)
				if err != nil {
					t.Fatalf("as heddle inject writes it: %v", err)
				}
				if d := cmp.Diff(offline.Spec, online.Spec); d != "" {
					t.Errorf("heddle inject (-) and the webhook (+) differ:\n%s", d)
				}
				again, err := create(t, "golden-on", after[i], true)
				if err != nil {
					t.Fatalf("as heddle inject writes it, through the webhook: %v", err)
				}
				if d := cmp.Diff(online.Spec, again.Spec); d != "" {
					t.Errorf("the webhook changed what heddle inject wrote:\n%s", d)
				}
			})
		}
	}
	if count < 20 {
		t.Errorf("only %d pods were compared", count)
	}
}

// pods are the pods of a file's workloads, as their controllers make them.
func pods(t *testing.T, text []byte) []m {
	t.Helper()
	var out []m
	for _, document := range strings.Split(string(text), "\n---\n") {
		var object m
		if err := yaml.Unmarshal([]byte(document), &object); err != nil {
			t.Fatal(err)
		}
		items, _ := object["items"].([]any)
		for _, item := range append(items, object) {
			object := item.(m)
			spec, _ := object["spec"].(m)
			if job, ok := spec["jobTemplate"].(m); ok {
				spec = job["spec"].(m)
			}
			if template, ok := spec["template"].(m); ok && object["kind"] != "Rollout" {
				object = template
			} else if object["kind"] != "Pod" {
				continue
			}
			meta, _ := object["metadata"].(m)
			pod := m{"apiVersion": "v1", "kind": "Pod", "metadata": m{"name": "a", "labels": meta["labels"], "annotations": meta["annotations"]}, "spec": object["spec"]}
			volumes, _ := object["spec"].(m)["volumes"].([]any)
			if claims, ok := spec["volumeClaimTemplates"].([]any); ok {
				for _, claim := range claims {
					name := claim.(m)["metadata"].(m)["name"]
					volumes = append([]any{m{"name": name, "persistentVolumeClaim": m{"claimName": name}}}, volumes...)
				}
				object["spec"].(m)["volumes"] = volumes
			}
			if object["spec"].(m)["priorityClassName"] != nil {
				object["spec"].(m)["priorityClassName"] = "golden" // the system's are for its own namespace
			}
			out = append(out, pod)
		}
	}
	return out
}

// without is a pod that the webhook is not asked about.
func without(pod m) m {
	data, _ := json.Marshal(pod)
	var out m
	json.Unmarshal(data, &out)
	if labels, ok := out["metadata"].(m)["labels"].(m); ok {
		delete(labels, inject.InjectLabel)
	}
	return out
}

// TestRestricted: with the CNI plugin, a pod that the Pod Security level "restricted" lets in
// is let in with its sidecar. Without it, its init container is refused.
func TestRestricted(t *testing.T) {
	r := running(t, inject.DefaultRevision)
	ns := namespace(t, "restricted", m{inject.InjectLabel: "enabled", "pod-security.kubernetes.io/enforce": "restricted"})
	pod := plainPod("a")
	pod["spec"].(m)["securityContext"] = m{"runAsNonRoot": true, "runAsUser": 10001, "seccompProfile": m{"type": "RuntimeDefault"}}
	pod["spec"].(m)["containers"].([]any)[0].(m)["securityContext"] = m{"allowPrivilegeEscalation": false, "capabilities": m{"drop": []string{"ALL"}}}
	if _, err := create(t, ns, pod, true); err == nil || !strings.Contains(err.Error(), "heddle-init") || strings.Contains(err.Error(), "heddle-proxy") {
		t.Errorf("without the CNI plugin: %v; want heddle-init refused, and nothing else", err)
	}
	r.change(func(c *inject.Config) { c.CNI = true })
	made, err := create(t, ns, pod, true)
	if err != nil || !inject.HasSidecar(made) {
		t.Errorf("with the CNI plugin: %v", err)
	}
}

// TestRefusal: whoever makes a pod that cannot have a sidecar reads which pod, which
// annotation, its value, and what to write.
func TestRefusal(t *testing.T) {
	running(t, inject.DefaultRevision)
	ns := namespace(t, "refusal", m{inject.InjectLabel: "enabled"})
	pod := plainPod("tuned")
	pod["metadata"].(m)["annotations"] = m{"heddle.dev/proxy-cpu": "lots"}
	_, err := create(t, ns, pod, false)
	if want := `heddle cannot put a sidecar into pod refusal/tuned: annotation heddle.dev/proxy-cpu is \"lots\": want a quantity above 0, such as 100m`; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v\nwant %s", err, want)
	}
}

// TestManyPods: 500 pods that start together all get their sidecar, though the webhook may
// ask the API server far too seldom to look at their namespace for each.
func TestManyPods(t *testing.T) {
	const pods, workers = 500, 50
	running(t, inject.DefaultRevision, func(c *rest.Config) { c.QPS, c.Burst = 5, 5 })
	ns := namespace(t, "many", m{inject.InjectLabel: "enabled"})
	var left atomic.Int64
	left.Store(pods)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if pod, err := create(t, ns, plainPod("a"), true); err != nil || !inject.HasSidecar(pod) {
					t.Errorf("a pod without a sidecar: %v", err)
				}
			}
		})
	}
	wg.Wait()
}

// TestReinvocation: another webhook adds a container with a probe after ours was asked; the
// API server asks again, and the probe asks the sidecar.
func TestReinvocation(t *testing.T) {
	running(t, inject.DefaultRevision)
	later := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in admissionv1.AdmissionReview
		data, err := io.ReadAll(r.Body)
		if err != nil || json.Unmarshal(data, &in) != nil {
			http.Error(w, "no review", http.StatusBadRequest)
			return
		}
		var pod corev1.Pod
		out := &admissionv1.AdmissionResponse{UID: in.Request.UID, Allowed: true}
		if json.Unmarshal(in.Request.Object.Raw, &pod) == nil && len(pod.Spec.Containers) == 1 {
			kind := admissionv1.PatchTypeJSONPatch
			out.PatchType = &kind
			out.Patch = []byte(`[{"op":"add","path":"/spec/containers/0","value":{"name":"late","image":"l","livenessProbe":{"tcpSocket":{"port":9000}}}},
				{"op":"add","path":"/spec/initContainers/0","value":{"name":"early","image":"e"}}]`)
		}
		json.NewEncoder(w).Encode(admissionv1.AdmissionReview{TypeMeta: in.TypeMeta, Response: out})
	}))
	later.TLS.MinVersion = tls.VersionTLS12
	defer later.Close()
	path := "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
	do(t, http.MethodPost, path, m{"metadata": m{"name": "zz-later"}, "webhooks": []any{m{
		"name": "later.example.com", "admissionReviewVersions": []string{"v1"}, "sideEffects": "None",
		"clientConfig":      m{"url": later.URL, "caBundle": pemOf(later)},
		"namespaceSelector": m{"matchLabels": m{"kubernetes.io/metadata.name": "reinvocation"}},
		"rules":             []any{m{"apiGroups": []string{""}, "apiVersions": []string{"v1"}, "operations": []string{"CREATE"}, "resources": []string{"pods"}}},
	}}}, nil)
	defer do(t, http.MethodDelete, path+"/zz-later", nil, nil)
	ns := namespace(t, "reinvocation", m{inject.InjectLabel: "enabled"})
	var pod *corev1.Pod
	await(t, "the API server asks the later webhook", func() (err error) {
		if pod, err = create(t, ns, plainPod("a"), true); err == nil && len(pod.Spec.Containers) != 2 {
			err = io.ErrNoProgress
		}
		return err
	})
	if got := pod.Spec.InitContainers; len(got) != 3 || got[0].Name != "heddle-init" || got[1].Name != "heddle-proxy" || got[2].Name != "early" {
		t.Errorf("init containers are %s", asJSON(got))
	}
	probe := pod.Spec.Containers[0].LivenessProbe
	if probe.HTTPGet == nil || probe.HTTPGet.Path != "/probe/late/liveness" {
		t.Errorf("the later container's probe is %s", asJSON(probe))
	}
	for _, e := range pod.Spec.InitContainers[1].Env {
		if e.Name == "HEDDLE_PROBES" {
			want := `{"/probe/app/readiness":{"httpGet":{"path":"/r","port":80,"scheme":"HTTP"},"timeoutSeconds":1},"/probe/late/liveness":{"tcpSocket":{"port":9000},"timeoutSeconds":1}}`
			if e.Value != want {
				t.Errorf("the sidecar is told %s\nwant %s", e.Value, want)
			}
		}
	}
}
