package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// shop has three tiers: a client, an API in two versions, a server that speaks first.
// APP is the test's program.
const shop = `
services:
  web:
    ports: [8080]
    command: [APP, serve, --http, ":8080"]
  api-v1: &api
    service: api
    labels: {app: api, version: v1}
    ports: [8080]
    ready: /healthz
    command: [APP, serve, --http, ":8080", --version, v1]
  api-v2:
    <<: *api
    labels: {app: api, version: v2}
    command: [APP, serve, --http, ":8080", --version, v2]
  db:
    ports: [3306]
    command: [APP, serve, --banner, ":3306"]
`

// shopObjects are its services, by file name.
func shopObjects() map[string]string {
	return map[string]string{
		"services.yaml": service("web", "app: web", "{name: http, port: 80, targetPort: 8080}") +
			service("api", "app: api", "{name: http, port: 80, targetPort: 8080}") +
			service("api-v1", "app: api, version: v1", "{name: http, port: 80, targetPort: 8080}") +
			service("api-v2", "app: api, version: v2", "{name: http, port: 80, targetPort: 8080}") +
			service("db", "app: db", "{name: mysql, port: 3306}") +
			service("db-each", "app: db", "{name: mysql, port: 3306}", ", clusterIP: None"),
	}
}

func service(name, selector, ports string, more ...string) string {
	return fmt.Sprintf(`
---
apiVersion: v1
kind: Service
metadata: {name: %s}
spec: {selector: {%s}, ports: [%s]%s}
`, name, selector, ports, strings.Join(more, ""))
}

// split is a route that shares the requests to api out to its versions.
func split(v1, v2 int) string {
	return fmt.Sprintf(`
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: split}
spec:
  parentRefs: [{group: "", kind: Service, name: api}]
  rules:
  - backendRefs: [{name: api-v1, port: 80, weight: %d}, {name: api-v2, port: 80, weight: %d}]
`, v1, v2)
}

// allow is a policy that lets only callers through to a service.
func allow(service string, callers ...string) string {
	var from []string
	for _, c := range callers {
		from = append(from, "{serviceAccount: "+c+"}")
	}
	return fmt.Sprintf(`
---
apiVersion: mesh.heddle.dev/v1alpha1
kind: AuthorizationPolicy
metadata: {name: %[1]s-callers}
spec:
  targetRefs: [{kind: Service, name: %[1]s}]
  action: Allow
  rules: [{from: [%[2]s]}]
`, service, strings.Join(from, ", "))
}

// answer is what the test's program tells of one question.
type answer struct {
	Code        int
	Body, Error string
}

// request is what the test's server tells of a request that reached it.
type request struct {
	Workload, Version, Host string
	Headers                 map[string][]string
}

// Ask runs a command that tells one answer, in a workload's network.
func (p *project) Ask(workload string, args ...string) (answer, error) {
	return told(p.Exec(workload, args...))
}

// told reads one answer.
func told(text string, err error) (answer, error) {
	if err != nil {
		return answer{}, err
	}
	var a answer
	if err := json.Unmarshal([]byte(text), &a); err != nil {
		return a, fmt.Errorf("%s: %w", text, err)
	}
	return a, nil
}

// MustAsk is Ask for what cannot fail.
func (p *project) MustAsk(workload string, args ...string) answer {
	p.t.Helper()
	a, err := p.Ask(workload, args...)
	if err != nil {
		p.t.Fatal(err)
	}
	return a
}

// AwaitCode waits until a request from a workload is answered with a code.
func (p *project) AwaitCode(workload, url string, code int) answer {
	p.t.Helper()
	var a answer
	await(p.t, 10*time.Second, fmt.Sprintf("%s answers %d", url, code), func() (err error) {
		if a, err = p.Ask(workload, "get", url); err == nil && a.Code != code {
			err = fmt.Errorf("%+v", a)
		}
		return err
	})
	return a
}

// Address gives a workload's address, of IPv4 or of IPv6.
func (p *project) Address(workload string, v6 bool) string {
	p.t.Helper()
	status, err := p.Status(workload)
	if err != nil {
		p.t.Fatal(err)
	}
	for _, a := range status.Addresses {
		if strings.Contains(a, ":") == v6 {
			return a
		}
	}
	p.t.Fatalf("%s has no such address: %v", workload, status.Addresses)
	return ""
}

// decode reads what the test's server said.
func decode(t *testing.T, a answer) request {
	t.Helper()
	var r request
	if err := json.Unmarshal([]byte(a.Body), &r); err != nil || a.Code != 200 {
		t.Fatalf("%+v: %v", a, err)
	}
	return r
}
