package e2e

import (
	"fmt"
	"strings"
	"time"
)

// malformed: a file with a mistake changes nothing, and the control plane says which, on
// which line, and what. The other files stay in force, and so does what the file held.
func malformed(p *project) {
	const name = "extra.yaml"
	p.Temporarily(name, service("extra", "app: api", "{name: http, port: 80, targetPort: 8080}"))
	p.AwaitCode("web-0", "http://extra/", 200)
	p.WriteObject(name, `apiVersion: v1
kind: Service
metadata: {name: extra}
spec:
  selector: {app: nobody}
  prots: [{port: 80}]
`)
	await(p.t, 5*time.Second, "the mistake is reported", func() error {
		for line := range strings.Lines(p.Log("controlplane")) {
			if strings.Contains(line, name+":6") && strings.Contains(line, "prots") && strings.Contains(line, "ports") {
				return nil
			}
		}
		return fmt.Errorf("not in %s", p.Log("controlplane"))
	})
	p.AwaitCode("web-0", "http://extra/", 200)
	p.AwaitCode("web-0", "http://api/", 200)
	p.WriteObject(name, service("extra", "app: nobody", "{name: http, port: 80, targetPort: 8080}"))
	p.AwaitCode("web-0", "http://extra/", 503)
}

// routeToNowhere: a route whose service does not exist answers 500, as Gateway API says,
// until the service does.
func routeToNowhere(p *project) {
	p.Temporarily("nowhere.yaml", `
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: nowhere}
spec:
  parentRefs: [{group: "", kind: Service, name: web}]
  rules: [{backendRefs: [{name: later, port: 80}]}]
`)
	p.AwaitCode("db-0", "http://web/", 500)
	p.Temporarily("later.yaml", service("later", "app: api", "{name: http, port: 80, targetPort: 8080}"))
	p.AwaitCode("db-0", "http://web/", 200)
}
