//go:build k8s

package kubernetes

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/heddle-mesh/heddle/discovery/kubernetes/kubetest"
	"github.com/heddle-mesh/heddle/discovery/manifest"
)

var server *kubetest.Server

func TestMain(m *testing.M) {
	os.Exit(kubetest.Main(func(s *kubetest.Server) int {
		server = s
		if err := define(context.Background()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}))
}

// define makes the kinds and waits until the API server has them, without a word about
// their schemas.
func define(ctx context.Context) error {
	const path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	definitions, err := Definitions()
	if err != nil {
		return err
	}
	for _, d := range definitions {
		if err := server.Do(ctx, http.MethodPost, path+"?fieldValidation=Strict", d.Object, nil); err != nil {
			return err
		}
		for established := false; !established; {
			var now struct {
				Status struct {
					Conditions []struct{ Type, Status, Message string }
				}
			}
			if err := server.Do(ctx, http.MethodGet, path+"/"+d.GetName(), nil, &now); err != nil {
				return err
			}
			for _, c := range now.Status.Conditions {
				if c.Type == "NonStructuralSchema" && c.Status == "True" {
					return fmt.Errorf("%s: %s", d.GetName(), c.Message)
				}
				established = established || c.Type == "Established" && c.Status == "True"
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("%s is not established: %w", d.GetName(), ctx.Err())
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	return nil
}

// TestVerdicts: the API server refuses what heddle apply refuses, and takes what it takes;
// what CEL says has the same words.
func TestVerdicts(t *testing.T) {
	const anyPattern = "in body should match"
	for _, c := range []struct{ kind, name, spec, want string }{
		{"AuthorizationPolicy", "a", `{}`, ""},
		{"AuthorizationPolicy", "a", `{action: Deny, rules: [{}]}`, ""},
		{"AuthorizationPolicy", "a", `{targetRefs: [{kind: Service, name: a}, {kind: Service, name: b, group: ""}], rules: [{from: [{serviceAccount: x}, {namespace: ops}, {serviceAccount: x, namespace: ops}, {identity: "spiffe://mesh.local/ns/a/sa/b"}], ports: [80, 65535]}]}`, ""},
		{"AuthorizationPolicy", "a", `{action: Deny}`, "a Deny without rules refuses nobody; add a rule, {} refuses everybody"},
		{"AuthorizationPolicy", "a", `{action: Deny, rules: []}`, "a Deny without rules refuses nobody"},
		{"AuthorizationPolicy", "a", `{action: Audit, rules: [{}]}`, "Unsupported value"},
		{"AuthorizationPolicy", "a", `{targetRefs: []}`, "should have at least 1 items"},
		{"AuthorizationPolicy", "a", `{targetRefs: [{kind: Service, name: a}, {kind: Service, name: a}]}`, "a second time; remove one of the two"},
		{"AuthorizationPolicy", "a", `{targetRefs: [{kind: Pod, name: a}]}`, "Unsupported value"},
		{"AuthorizationPolicy", "a", `{targetRefs: [{kind: Service}]}`, "Required value"},
		{"AuthorizationPolicy", "a", `{targetRefs: [{kind: Service, name: A}]}`, anyPattern},
		{"AuthorizationPolicy", "a", `{targetRefs: [{kind: Service, name: a, group: apps}]}`, "Unsupported value"},
		{"AuthorizationPolicy", "a", `{rules: [{from: [{}]}]}`, "names nobody; give serviceAccount, namespace or identity"},
		{"AuthorizationPolicy", "a", `{rules: [{from: []}]}`, "should have at least 1 items"},
		{"AuthorizationPolicy", "a", `{rules: [{from: [{identity: "spiffe://mesh.local/ns/a/sa/b", namespace: a}]}]}`, "has an identity and more; give identity alone, or serviceAccount and namespace"},
		{"AuthorizationPolicy", "a", `{rules: [{from: [{identity: "mesh.local/ns/a/sa/b"}]}]}`, anyPattern},
		{"AuthorizationPolicy", "a", `{rules: [{ports: [0]}]}`, "should be greater than or equal to 1"},
		{"AuthorizationPolicy", "a", `{rules: [{ports: [65536]}]}`, "should be less than or equal to 65535"},
		{"AuthorizationPolicy", "a", `{rules: [{ports: ["80"]}]}`, "Invalid value"},
		{"AuthorizationPolicy", "a", `{rules: [{port: [80]}]}`, "unknown field"},
		{"AuthorizationPolicy", "a", ``, "spec: Required value"},
		{"MeshConfig", "mesh", `{}`, ""},
		{"MeshConfig", "mesh", `{trustDomain: mesh.local, clusterDomain: cluster.local, tracing: {samplingPercent: 0.5}, accessLog: false, locality: {preferZone: false}, outlierDetection: {consecutiveErrors: 0, baseEjectionTime: 1m30s, maxEjectionPercent: 100}, connectTimeout: 1h2m3s4ms}`, ""},
		{"MeshConfig", "other", `{}`, "the mesh has one MeshConfig and its name is mesh"},
		{"MeshConfig", "mesh", `{tracing: {samplingPercent: 101}}`, "should be less than or equal to 100"},
		{"MeshConfig", "mesh", `{outlierDetection: {maxEjectionPercent: -1}}`, "should be greater than or equal to 0"},
		{"MeshConfig", "mesh", `{outlierDetection: {consecutiveErrors: 1000001}}`, "should be less than or equal to 1000000"},
		{"MeshConfig", "mesh", `{outlierDetection: {baseEjectionTime: 0s}}`, "is 0; give at least 1ms, or consecutiveErrors: 0 to turn ejection off"},
		{"MeshConfig", "mesh", `{connectTimeout: 0ms}`, "is 0; give at least 1ms"},
		{"MeshConfig", "mesh", `{connectTimeout: 1.5s}`, anyPattern},
		{"MeshConfig", "mesh", `{connectTimeout: 5}`, "Invalid value"},
		{"MeshConfig", "mesh", `{accessLog: "no"}`, "Invalid value"},
	} {
		t.Run(c.kind+" "+c.name+" "+c.spec, func(t *testing.T) {
			text := fmt.Sprintf("apiVersion: %s\nkind: %s\nmetadata: {name: %s}\n", heddleAPI, c.kind, c.name)
			if c.spec != "" {
				text += "spec: " + c.spec + "\n"
			}
			var document map[string]any
			if err := yaml.Unmarshal([]byte(text), &document); err != nil {
				t.Fatal(err)
			}
			err := server.Do(t.Context(), http.MethodPost, pathOf(c.kind)+"?dryRun=All&fieldValidation=Strict", document, nil)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("the API server says %v\nwant %q", err, c.want)
			}
			if _, err := manifest.Parse("", []byte(text), manifest.Options{}); (err == nil) != (c.want == "") {
				t.Errorf("heddle apply says %v", err)
			}
		})
	}
}

// TestStatus: a status is kept whole, apart from the spec and its generation, and kubectl
// get shows the columns.
func TestStatus(t *testing.T) {
	type m = map[string]any
	var made struct {
		Metadata struct{ Generation int64 }
		Spec     m
		Status   m
	}
	policy := m{"apiVersion": heddleAPI, "kind": "AuthorizationPolicy", "metadata": m{"name": "shown"},
		"spec": m{"rules": []any{m{"ports": []int{80}}}}, "status": m{"observedGeneration": 9}}
	if err := server.Do(t.Context(), http.MethodPost, pathOf("AuthorizationPolicy"), policy, &made); err != nil {
		t.Fatal(err)
	}
	if made.Status != nil || made.Spec["action"] != "Allow" {
		t.Errorf("made with status %v and action %v", made.Status, made.Spec["action"])
	}
	now := time.Now().UTC().Format(time.RFC3339)
	condition := func(kind string) m {
		return m{"type": kind, "status": "True", "observedGeneration": 1, "reason": kind, "message": "", "lastTransitionTime": now}
	}
	status := m{"observedGeneration": 1, "proxies": m{"total": 3, "live": 2}, "conditions": []any{condition("Accepted"), condition("ResolvedRefs"), condition("Programmed")}}
	if err := server.Do(t.Context(), http.MethodPatch, pathOf("AuthorizationPolicy")+"/shown/status", m{"status": status, "spec": m{"action": "Deny"}}, &made); err != nil {
		t.Fatal(err)
	}
	if got, want := asJSON(t, made.Status), asJSON(t, status); got != want || made.Spec["action"] != "Allow" || made.Metadata.Generation != 1 {
		t.Errorf("the status is %s\nwant %s\ngeneration %d, spec %v", got, want, made.Metadata.Generation, made.Spec)
	}
	bad := m{"status": m{"conditions": []any{m{"type": "Accepted", "status": "Perhaps"}}}}
	if err := server.Do(t.Context(), http.MethodPatch, pathOf("AuthorizationPolicy")+"/shown/status", bad, nil); err == nil {
		t.Error("a condition that is none was taken")
	}

	client, err := rest.HTTPClientFor(server.Admin())
	if err != nil {
		t.Fatal(err)
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.Admin().Host+pathOf("AuthorizationPolicy"), nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
	answer, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	var table struct {
		ColumnDefinitions []struct{ Name string }
		Rows              []struct{ Cells []any }
	}
	if err := json.Unmarshal(text, &table); err != nil || len(table.Rows) != 1 {
		t.Fatalf("%v: %s", err, text)
	}
	var names []string
	for _, c := range table.ColumnDefinitions {
		names = append(names, c.Name)
	}
	if got, want := strings.Join(names, " "), "Name Action Accepted Programmed Live Proxies Age"; got != want {
		t.Errorf("columns are %s, want %s", got, want)
	}
	if got, want := fmt.Sprint(table.Rows[0].Cells[:6]), "[shown Allow True True 2 3]"; got != want {
		t.Errorf("the row is %s, want %s", got, want)
	}
}

const heddleAPI = "mesh.heddle.dev/v1alpha1"

// pathOf is where the API has a kind.
func pathOf(kind string) string {
	if kind == "MeshConfig" {
		return "/apis/" + heddleAPI + "/meshconfigs"
	}
	return "/apis/" + heddleAPI + "/namespaces/default/authorizationpolicies"
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
