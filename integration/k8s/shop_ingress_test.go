//go:build k8s

package k8s

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// shopIngress has the shop's pages and API behind one host. PostgreSQL, which no Ingress
// should name, lets nobody in but the API.
func shopIngress(t *testing.T) {
	e := edge{t: t, ns: "shop", issuer: newIssuer(t)}
	e.issue("shop-tls", "shop.example")
	apply(t, "shop", `
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: shop}
spec:
  ingressClassName: heddle
  tls: [{hosts: [shop.example], secretName: shop-tls}]
  rules:
  - host: shop.example
    http:
      paths:
      - {path: /, pathType: Prefix, backend: {service: {name: frontend, port: {name: http}}}}
      - {path: /db, pathType: Prefix, backend: {service: {name: db, port: {number: 5432}}}}
`)
	eventually(t, "the shop's Ingress has an address", func() (string, bool) {
		e.at = kubectl(t, "-n", "shop", "get", "ingress", "shop", "-o", "jsonpath={.status.loadBalancer.ingress[0].ip}")
		return e.at, e.at != ""
	})
	eventually(t, "the shop's page", func() (string, bool) {
		v := e.visit("https://shop.example/")
		return fmt.Sprintf("%+v", v), v.Code == 200 && strings.Contains(v.Body, "<html")
	})
	var document map[string]any
	if v := e.visit("https://shop.example/api/"); json.Unmarshal([]byte(v.Body), &document) != nil || document["id"] == nil {
		t.Errorf("a document: %+v", v)
	}
	if v := e.visit("https://shop.example/db"); v.Code != 503 {
		t.Errorf("the database: %+v", v)
	}
}
