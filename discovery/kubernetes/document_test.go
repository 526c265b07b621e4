package kubernetes

import (
	"encoding/json"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/discovery/manifest"
)

var testOptions = manifest.Options{TrustDomain: "shop.example", ClusterDomain: "cluster.local"}

// object is a document as the API server sends it.
func object(t testing.TB, name, spec string) *documentObject {
	t.Helper()
	text := `{"apiVersion":"x","kind":"y","metadata":{"namespace":"shop","name":"` + name + `","uid":"u","generation":4,"creationTimestamp":"2026-01-02T03:04:05Z",
		"finalizers":["f"],"ownerReferences":[],"managedFields":[{"manager":"kubectl"}],"annotations":{"a":"b"}},"spec":` + spec + `,"status":{"x":1}}`
	out := new(documentObject)
	if err := json.Unmarshal([]byte(text), out); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestDocument(t *testing.T) {
	const parent, backend = `{"group":"","kind":"Service","name":"api"}`, `"rules":[{"backendRefs":[{"name":"api","port":80}]}]`
	for _, tc := range []struct {
		name string
		kind mesh.Kind
		spec string
		want string // "ok", "not ours", or part of the error
	}{
		{"route", mesh.KindHTTPRoute, `{"parentRefs":[` + parent + `],` + backend + `}`, "ok"},
		{"route of a gateway", mesh.KindHTTPRoute, `{"parentRefs":[{"name":"front"}],"hostnames":["*.example"],` + backend + `}`, "not ours"},
		{"gRPC route of a gateway", mesh.KindGRPCRoute, `{"parentRefs":[{"kind":"Gateway","name":"front"}]}`, "not ours"},
		{"route of both", mesh.KindHTTPRoute, `{"parentRefs":[{"name":"front","sectionName":"https"},` + parent + `],` + backend + `}`, "ok"},
		{"group of a gateway's", mesh.KindHTTPRoute, `{"parentRefs":[{"group":"gateway.networking.k8s.io","kind":"Service","name":"api"}]}`, `give group: ""`},
		{"parents of another form", mesh.KindHTTPRoute, `{"parentRefs":7}`, "spec.parentRefs: want a list"},
		{"a parent of another form", mesh.KindHTTPRoute, `{"parentRefs":[7,{"name":"front"}]}`, "spec.parentRefs[0]: want a mapping"},
		{"no spec", mesh.KindHTTPRoute, `null`, "spec: missing"},
		{"policy", mesh.KindAuthorizationPolicy, `{"rules":[{"from":[{"namespace":"shop"}]}]}`, "ok"},
		{"unknown field", mesh.KindAuthorizationPolicy, `{"rulez":[]}`, "AuthorizationPolicy shop/x: spec.rulez: unknown field; did you mean rules?"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := documentOf(tc.kind, versionOf(tc.kind), object(t, "x", tc.spec), testOptions)
			switch {
			case tc.want == "not ours":
				if got != nil {
					t.Errorf("got %+v, %v", got.object, got.err)
				}
			case got == nil:
				t.Error("not ours")
			case tc.want == "ok":
				if got.err != nil {
					t.Fatal(got.err)
				}
				want := mesh.Meta{Ref: mesh.Ref{Kind: tc.kind, Name: mesh.Name{Namespace: "shop", Name: "x"}}, Generation: 4, Created: 1767323045e9}
				if *got.object.Header() != want {
					t.Errorf("meta data is %+v, want %+v", got.object.Header(), want)
				}
			case got.err == nil || !strings.Contains(got.err.Error(), tc.want) || strings.Contains(got.err.Error(), "line "):
				t.Errorf("error %v, want one with %q", got.err, tc.want)
			}
		})
	}
}

func versionOf(kind mesh.Kind) string {
	for _, d := range documentKinds {
		if d.kind == kind {
			return d.version.String()
		}
	}
	return ""
}

// FuzzObjects converts whatever JSON as an object of every kind: what comes out is well
// formed or an error, and nothing panics.
func FuzzObjects(f *testing.F) {
	for _, spec := range []string{`{"parentRefs":[{"kind":"Service","group":"","name":"a"}]}`, `null`, `{"clusterIPs":["None","10.0.0.1"],"ports":[{"port":80}]}`} {
		f.Add([]byte(`{"metadata":{"namespace":"shop","name":"x","generation":-1},"spec":` + spec + `}`))
	}
	f.Add([]byte(`{"metadata":{"labels":{"kubernetes.io/service-name":"a"}},"endpoints":[{"addresses":["10.0.0.1"],"targetRef":{"kind":"Pod"}}],"ports":[{"port":1}]}`))
	pod, err := json.Marshal(meshPod())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(pod)
	f.Fuzz(func(t *testing.T, data []byte) {
		d := new(documentObject)
		if json.Unmarshal(data, d) == nil {
			for _, k := range documentKinds {
				got := documentOf(k.kind, k.version.String(), d, testOptions)
				if got != nil && (got.err == nil) != (got.object != nil) {
					t.Fatalf("%s: object %v and error %v", k.kind, got.object, got.err)
				}
				if got != nil && got.err == nil && got.object.Header().Name != (mesh.Name{Namespace: d.Namespace, Name: d.Name}) {
					t.Fatalf("%s: %s", k.kind, got.object.Header().Ref)
				}
			}
		}
		if s := new(corev1.Service); json.Unmarshal(data, s) == nil {
			if out := service(s); out.Headless && len(out.VirtualIPs) > 0 || len(out.VirtualIPs) > 2 {
				t.Fatalf("service %+v", out)
			}
		}
		if s := new(discoveryv1.EndpointSlice); json.Unmarshal(data, s) == nil {
			if out := endpointSlice(s); out != nil && (len(out.uids) != len(out.Endpoints) || out.Service == "") {
				t.Fatalf("slice %+v", out)
			}
		}
		if p := new(corev1.Pod); json.Unmarshal(data, p) == nil {
			if out := podOf(p, "shop.example", mesh.Name{}); out.workload != nil && (out.workload.Identity.IsZero() || len(out.workload.Addresses) == 0) {
				t.Fatalf("workload %+v", out.workload)
			}
		}
	})
}
