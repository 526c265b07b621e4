package webhook

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"

	"github.com/heddle-mesh/heddle/discovery/manifest"
)

func testServer() *Server {
	return New(Config{Service: "heddle-controlplane", Namespace: "heddle-system", Options: manifest.Options{TrustDomain: "shop.example"}, Log: slog.New(slog.DiscardHandler)})
}

// TestMalformed: what is no review is answered with 400 and a sentence that says so.
func TestMalformed(t *testing.T) {
	for _, c := range []struct {
		name, body string
		code       int
		want       string
	}{
		{"nothing", "", 400, "the body is not JSON of a review"},
		{"noise", "\x00\xff{", 400, "the body is not JSON of a review"},
		{"a list", "[]", 400, "the body is not JSON of a review"},
		{"another object", `{"apiVersion":"v1","kind":"Pod"}`, 400, `the body is a "Pod" of "v1"; want an AdmissionReview of admission.k8s.io/v1`},
		{"an older version", `{"apiVersion":"admission.k8s.io/v1beta1","kind":"AdmissionReview","request":{"uid":"u"}}`, 400, `of "admission.k8s.io/v1beta1"`},
		{"no request", `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}`, 400, "the AdmissionReview has no request"},
		{"no uid", `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{}}`, 400, "has no uid"},
		{"too much", `{"apiVersion":"` + strings.Repeat("a", maxBody) + `"}`, 413, "the AdmissionReview has more than 8388608 bytes"},
	} {
		for _, path := range []string{"/inject", "/validate"} {
			t.Run(c.name+path, func(t *testing.T) {
				w := call(http.MethodPost, path, c.body)
				if w.Code != c.code || !strings.Contains(w.Body.String(), c.want) {
					t.Errorf("got %d %s, want %d with %q", w.Code, w.Body, c.code, c.want)
				}
			})
		}
	}
	if w := call(http.MethodGet, "/inject", ""); w.Code != http.StatusMethodNotAllowed {
		t.Errorf("GET /inject: %d", w.Code)
	}
	if w := call(http.MethodPost, "/", "{}"); w.Code != http.StatusNotFound {
		t.Errorf("POST /: %d", w.Code)
	}
}

// TestPodThatIsNone: an object that is no pod is denied, and an answer names the call.
func TestPodThatIsNone(t *testing.T) {
	response := ask(t, "/inject", `{"uid":"u1","operation":"CREATE","namespace":"shop","resource":{"version":"v1","resource":"pods"},"object":"x"}`)
	if response.Allowed || response.Result.Code != 400 || !strings.HasPrefix(response.Result.Message, "read the pod: ") {
		t.Errorf("got %+v", response)
	}
}

// TestNotAsked: what a wrong configuration may send is let through as it is.
func TestNotAsked(t *testing.T) {
	for _, request := range []string{
		`{"uid":"u1","operation":"UPDATE","resource":{"version":"v1","resource":"pods"},"object":{}}`,
		`{"uid":"u1","operation":"CREATE","resource":{"group":"apps","version":"v1","resource":"deployments"},"object":{}}`,
		`{"uid":"u1","operation":"CREATE","subResource":"binding","resource":{"version":"v1","resource":"pods"},"object":{}}`,
	} {
		if response := ask(t, "/inject", request); !response.Allowed || response.Patch != nil {
			t.Errorf("%s: got %+v", request, response)
		}
	}
}

// TestValidate: the messages are those of heddle apply, word by word.
func TestValidate(t *testing.T) {
	meta := `"metadata":{"name":"p","namespace":"shop","uid":"x","resourceVersion":"7","finalizers":["a/b"],"ownerReferences":[]}`
	policy := func(spec string) string {
		return `{"apiVersion":"mesh.heddle.dev/v1alpha1","kind":"AuthorizationPolicy",` + meta + `,"spec":` + spec + `,"status":{"conditions":[]}}`
	}
	bad, good := policy(`{"action":"Dney","rules":[{"ports":[0]}]}`), policy(`{"action":"Deny","rules":[{}]}`)
	_, err := manifest.Parse("", []byte(`{"apiVersion":"mesh.heddle.dev/v1alpha1","kind":"AuthorizationPolicy","metadata":{"name":"p","namespace":"shop"},"spec":{"action":"Dney","rules":[{"ports":[0]}]}}`), manifest.Options{})
	want := strings.ReplaceAll(err.Error(), "line 1: ", "")
	for _, c := range []struct{ name, operation, object, old, want string }{
		{"good", "CREATE", good, "", ""},
		{"bad", "CREATE", bad, "", want},
		{"made bad", "UPDATE", bad, good, want},
		{"was bad, and only the rest changes", "UPDATE", bad, strings.Replace(bad, `"finalizers":["a/b"],`, "", 1), ""},
		{"deleted", "DELETE", "null", bad, ""},
		{"a kind of somebody else", "CREATE", `{"apiVersion":"v1","kind":"ConfigMap",` + meta + `}`, "", ""},
		{"a route of a Gateway", "CREATE", `{"apiVersion":"gateway.networking.k8s.io/v1","kind":"HTTPRoute",` + meta + `,"spec":{"parentRefs":[{"name":"front"}],"rules":[{"filters":[{"type":"RequestMirror"}]}]}}`, "", ""},
		{"a route of a Service", "CREATE", `{"apiVersion":"gateway.networking.k8s.io/v1","kind":"HTTPRoute",` + meta + `,"spec":{"parentRefs":[{"kind":"Service","group":"","name":"api"}],"rules":[{"backendRefs":[{"name":"api","port":80,"wieght":1}]}]}}`, "",
			"HTTPRoute shop/p: spec.rules[0].backendRefs[0].wieght: unknown field; did you mean weight?"},
	} {
		t.Run(c.name, func(t *testing.T) {
			old := ""
			if c.old != "" {
				old = `,"oldObject":` + c.old
			}
			response := ask(t, "/validate", fmt.Sprintf(`{"uid":"u1","operation":%q,"object":%s%s}`, c.operation, c.object, old))
			got := ""
			if response.Result != nil {
				got = response.Result.Message
			}
			if got != c.want || response.Allowed != (c.want == "") {
				t.Errorf("allowed %v: %s\nwant %s", response.Allowed, got, c.want)
			}
		})
	}
}

// FuzzReview: whatever is sent, the answer is a review or a client's error.
func FuzzReview(f *testing.F) {
	f.Add(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}`)
	f.Add(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u","operation":"CREATE","object":{"apiVersion":"mesh.heddle.dev/v1alpha1","kind":"MeshConfig","metadata":{"name":"x"},"spec":{}}}}`)
	f.Fuzz(func(t *testing.T, body string) {
		w := call(http.MethodPost, "/validate", body)
		var review admissionv1.AdmissionReview
		if w.Code == http.StatusOK && (json.Unmarshal(w.Body.Bytes(), &review) != nil || review.Response == nil || review.Response.UID == "") {
			t.Errorf("answered with %s", w.Body)
		} else if w.Code/100 == 5 {
			t.Errorf("answered with %d %s", w.Code, w.Body)
		}
	})
}

func call(method, path, body string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	testServer().handler().ServeHTTP(w, httptest.NewRequest(method, path, bytes.NewReader([]byte(body))))
	return w
}

func ask(t *testing.T, path, request string) *admissionv1.AdmissionResponse {
	t.Helper()
	w := call(http.MethodPost, path, `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":`+request+`}`)
	var review admissionv1.AdmissionReview
	if err := json.Unmarshal(w.Body.Bytes(), &review); w.Code != http.StatusOK || err != nil {
		t.Fatalf("got %d %s", w.Code, w.Body)
	}
	if review.Response == nil || review.Response.UID != "u1" || review.Kind != "AdmissionReview" || review.APIVersion != "admission.k8s.io/v1" {
		t.Fatalf("got %s", w.Body)
	}
	return review.Response
}
