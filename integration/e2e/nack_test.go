package e2e

import (
	"fmt"
	"strings"
	"time"
)

// greedy is a route that the control plane takes and Envoy does not: a letter of any script
// is one step to Go's regular expressions and seven to those of Envoy, whose limit is 10,000.
const greedy = `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: greedy}
spec:
  parentRefs: [{group: "", kind: Service, name: api-v1}]
  rules:
  - matches: [{path: {type: RegularExpression, value: '/\pL{1000}/\pL{1000}'}}]
    backendRefs: [{name: api-v1, port: 80}]
`

// refusedByEnvoy: what real Envoys refuse reaches the user who applied it and the status of
// that object, with the reason; the last good routes stay, and all other changes go live.
func refusedByEnvoy(p *project) {
	file := p.dir + "/greedy.yaml"
	p.write(file, greedy)
	_, err := p.Heddle("apply", "--wait", "-f", file)
	if err == nil {
		p.t.Fatal("a route that Envoy refuses was applied")
	}
	for _, want := range []string{"default/web-0", "default/api-v1-0", "RE2 program size", "made from httproute/greedy:"} {
		if !strings.Contains(err.Error(), want) {
			p.t.Errorf("apply does not say %q: %v", want, err)
		}
	}
	text, err := p.Heddle("describe", "httproute", "greedy")
	if err != nil || !strings.Contains(text, "Programmed") || !strings.Contains(text, "RE2 program size") || !strings.Contains(text, "refused by default/") {
		p.t.Errorf("describe: %v\n%s", err, text)
	}
	await(p.t, 10*time.Second, "the service is not accused", func() error { // changes from before may be on their way
		text, err := p.Heddle("describe", "service", "api-v1")
		if err == nil && !strings.Contains(text, "live on 4 of 4 proxies") {
			err = fmt.Errorf("%s", text)
		}
		return err
	})
	decode(p.t, p.MustAsk("web-0", "get", "http://api-v1/"))
	// Another service's routes, and another type of configuration.
	p.Temporarily("split.yaml", split(0, 100))
	p.AwaitVersion("web-0", "v2")
	p.Temporarily("extra.yaml", service("extra", "app: api", "{name: http, port: 80, targetPort: 8080}"))
	p.AwaitCode("web-0", "http://extra/", 200)

	if _, err := p.Heddle("delete", "httproute", "greedy", "--wait"); err != nil {
		p.t.Error(err)
	}
	await(p.t, 10*time.Second, "nothing is refused", func() error {
		text, err := p.Heddle("proxies")
		if err == nil && strings.Contains(text, "refuse") {
			err = fmt.Errorf("%s", text)
		}
		return err
	})
	decode(p.t, p.MustAsk("web-0", "get", "http://api-v1/"))
}
