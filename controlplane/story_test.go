package controlplane

import (
	"bytes"
	"fmt"
	"net/netip"
	"regexp"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/yaml"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/controlplane/xds"
	"github.com/heddle-mesh/heddle/discovery/kubernetes"
	"github.com/heddle-mesh/heddle/discovery/manifest"
)

// tell submits the documents of a story, in one step, to an empty mesh. What comes first
// in the text is older, and services get virtual addresses by their names' order.
func tell(t *testing.T, name string, documents []byte) *xds.Cache {
	t.Helper()
	documents, changes := tellIngresses(t, documents)
	objects, err := manifest.Parse(name, documents, manifest.Options{Workloads: true})
	if err != nil {
		t.Fatal(err)
	}
	services := 0
	for _, o := range objects {
		meta := o.Object.Header()
		meta.Generation, meta.Created = 1, int64(o.Line)
		if s, ok := o.Object.(*mesh.Service); ok && !s.Headless {
			services++
			s.VirtualIPs = []netip.Addr{
				netip.AddrFrom4([4]byte{100, 96, 0, byte(services)}),
				netip.MustParseAddr(fmt.Sprintf("fd68:6564:646c:2::%x", services)),
			}
		}
		changes = append(changes, mesh.Set(o.Object))
	}
	cache := xds.NewCache()
	p, err := NewPipeline(mesh.DefaultMeshConfig(), cache, testPrefixes...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Submit(changes); err != nil {
		t.Fatal(err)
	}
	return cache
}

// testGateway is the gateway of the stories with Ingresses.
var testGateway = mesh.Name{Namespace: "heddle-system", Name: "heddle-ingress"}

var ofKubernetes = regexp.MustCompile(`(?m)^kind: (Ingress|Secret)$`)

// tellIngresses takes out of a story's documents those that only Kubernetes has, and leaves
// empty lines in their place.
func tellIngresses(t *testing.T, documents []byte) (rest []byte, changes []mesh.Change) {
	t.Helper()
	line := int64(1)
	for i, document := range bytes.Split(documents, []byte("\n---\n")) {
		if i > 0 {
			rest = append(rest, "\n---\n"...)
		}
		if kind := ofKubernetes.FindSubmatch(document); kind == nil {
			rest = append(rest, document...)
		} else {
			rest = append(rest, bytes.Repeat([]byte("\n"), bytes.Count(document, []byte("\n")))...)
			o := ofDocument(t, string(kind[1]), document)
			o.Header().Created = line
			changes = append(changes, mesh.Set(o))
		}
		line += int64(bytes.Count(document, []byte("\n"))) + 2
	}
	if len(changes) > 0 {
		changes = append(changes, mesh.Set(&mesh.Gateway{Meta: mesh.Meta{Ref: mesh.Ref{Kind: mesh.KindGateway, Name: testGateway}, Generation: 1}}))
	}
	return rest, changes
}

func ofDocument(t *testing.T, kind string, document []byte) mesh.Object {
	t.Helper()
	secret, ingress := new(corev1.Secret), new(networkingv1.Ingress)
	var err error
	if kind == "Secret" {
		err = yaml.UnmarshalStrict(document, secret)
	} else {
		err = yaml.UnmarshalStrict(document, ingress)
	}
	if err != nil {
		t.Fatalf("%v in %s", err, document)
	}
	if kind == "Ingress" {
		return kubernetes.Ingress(ingress, testGateway)
	}
	secret.Data = map[string][]byte{}
	for k, v := range secret.StringData { // as the API server does
		secret.Data[k] = []byte(v)
	}
	return kubernetes.Certificate(secret, nil, time.Now())
}
