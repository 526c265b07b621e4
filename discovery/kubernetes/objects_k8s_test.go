//go:build k8s

package kubernetes

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
)

// m is a JSON object.
type m = map[string]any

func (b *bench) namespace(name string) {
	b.t.Helper()
	b.do(http.MethodPost, "/api/v1/namespaces", m{"metadata": m{"name": name}})
}

func (b *bench) path(resource string) string {
	return fmt.Sprintf("/api/v1/namespaces/%s/%s", b.ns, resource)
}

func (b *bench) create(resource string, object m) {
	b.t.Helper()
	b.do(http.MethodPost, b.path(resource), object)
}

// service creates a Service; without ports it has port 80 named http.
func (b *bench) service(name string, spec m) {
	b.t.Helper()
	if spec["ports"] == nil && spec["type"] != "ExternalName" {
		spec["ports"] = []m{{"name": "http", "port": 80}}
	}
	b.create("services", m{"metadata": m{"name": name}, "spec": spec})
}

func (b *bench) slicePath(name string) string {
	return fmt.Sprintf("/apis/discovery.k8s.io/v1/namespaces/%s/endpointslices%s", b.ns, name)
}

func sliceOf(service, name string, endpoints ...m) m {
	return m{"metadata": m{"name": name, "labels": m{"kubernetes.io/service-name": service}}, "addressType": "IPv4",
		"endpoints": endpoints, "ports": []m{{"name": "http", "port": 8080, "protocol": "TCP"}}}
}

// slice creates an EndpointSlice of a service.
func (b *bench) slice(service, name string, endpoints ...m) {
	b.t.Helper()
	b.do(http.MethodPost, b.slicePath(""), sliceOf(service, name, endpoints...))
}

// endpointAt is an endpoint of a slice; uid may be "".
func endpointAt(ip, pod, uid string) m {
	ref := m{"kind": "Pod", "name": pod}
	if uid != "" {
		ref["uid"] = uid
	}
	return m{"addresses": []string{ip}, "targetRef": ref}
}

// podSpec is what a test wants of a pod.
type podSpec struct {
	node, account string
	plain, host   bool // without a sidecar; in its node's network
	labels        m
}

func podObject(name string, p podSpec) m {
	meta := m{"name": name, "labels": p.labels}
	spec := m{"containers": []m{{"name": "app", "image": "app"}}, "nodeName": p.node, "serviceAccountName": p.account, "hostNetwork": p.host}
	if !p.plain {
		meta["annotations"] = m{InjectedAnnotation: "default"}
		spec["initContainers"] = []m{{"name": ProxyContainer, "image": "heddle", "restartPolicy": "Always"}}
	}
	return m{"metadata": meta, "spec": spec}
}

// pod creates a pod and gives its UID. It runs when its status says so.
func (b *bench) pod(name string, p podSpec) string {
	b.t.Helper()
	var made struct{ Metadata struct{ UID string } }
	if err := b.server.Do(b.t.Context(), http.MethodPost, b.path("pods"), podObject(name, p), &made); err != nil {
		b.t.Fatal(err)
	}
	return made.Metadata.UID
}

// status is what a kubelet says of a pod.
func (b *bench) status(name, phase string, ips ...string) {
	b.t.Helper()
	status := m{"phase": phase}
	if len(ips) > 0 {
		var all []m
		for _, ip := range ips {
			all = append(all, m{"ip": ip})
		}
		status["podIP"], status["podIPs"] = ips[0], all
	}
	b.do(http.MethodPatch, b.path("pods/"+name+"/status"), m{"status": status})
}

func (b *bench) running(name string, p podSpec, ips ...string) string {
	b.t.Helper()
	uid := b.pod(name, p)
	b.status(name, "Running", ips...)
	return uid
}

func (b *bench) deletePod(name string) {
	b.t.Helper()
	b.do(http.MethodDelete, b.path("pods/"+name), m{"gracePeriodSeconds": 0})
}

func (b *bench) node(name, zone string) {
	b.t.Helper()
	labels := m{}
	if zone != "" {
		labels["topology.kubernetes.io/zone"] = zone
	}
	b.do(http.MethodPost, "/api/v1/nodes", m{"metadata": m{"name": name, "labels": labels}})
	b.t.Cleanup(func() { b.remove("/api/v1/nodes/" + name) })
}

// install makes a kind known to the API server, without a schema.
func (b *bench) install(kind mesh.Kind) {
	b.t.Helper()
	for _, d := range documentKinds {
		if d.kind != kind {
			continue
		}
		scope := "Namespaced"
		if kind == mesh.KindMeshConfig {
			scope = "Cluster"
		}
		name := d.resource + "." + d.version.Group
		b.do(http.MethodPost, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", m{
			"metadata": m{"name": name, "annotations": m{"api-approved.kubernetes.io": "unapproved, of a test"}},
			"spec": m{"group": d.version.Group, "scope": scope,
				"names": m{"kind": string(kind), "plural": d.resource, "singular": strings.ToLower(string(kind))},
				"versions": []m{{"name": d.version.Version, "served": true, "storage": true, "subresources": m{"status": m{}},
					"schema": m{"openAPIV3Schema": m{"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}},
			}})
		b.t.Cleanup(func() { b.uninstall(kind) })
	}
	b.awaitServed(kind, true)
}

// awaitServed waits until the API server has a kind, or has it no more.
func (b *bench) awaitServed(kind mesh.Kind, want bool) {
	b.t.Helper()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	deadline := time.After(patience)
	for {
		err := b.server.Do(context.Background(), http.MethodGet, b.documentPath(kind, ""), nil, nil)
		if (err == nil) == want {
			return
		}
		select {
		case <-again.C:
		case <-deadline:
			b.t.Fatalf("%s served: want %v, got error %v", kind, want, err)
		}
	}
}

func (b *bench) uninstall(kind mesh.Kind) {
	for _, d := range documentKinds {
		if d.kind == kind {
			b.remove("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/" + d.resource + "." + d.version.Group)
			b.awaitServed(kind, false)
		}
	}
}

// remove deletes an object at the end of a test, where it may be gone already.
func (b *bench) remove(path string) {
	_ = b.server.Do(context.Background(), http.MethodDelete, path, nil, nil)
}

// documentPath is the path of objects of a kind, or of one of them.
func (b *bench) documentPath(kind mesh.Kind, name string) string {
	for _, d := range documentKinds {
		if d.kind == kind {
			path := fmt.Sprintf("/apis/%s/namespaces/%s/%s", d.version, b.ns, d.resource)
			if kind == mesh.KindMeshConfig {
				path = fmt.Sprintf("/apis/%s/%s", d.version, d.resource)
			}
			return strings.TrimSuffix(path+"/"+name, "/")
		}
	}
	b.t.Fatalf("no kind %s", kind)
	return ""
}

// document creates an object of a kind with a spec.
func (b *bench) document(kind mesh.Kind, name string, spec m) {
	b.t.Helper()
	for _, d := range documentKinds {
		if d.kind == kind {
			b.do(http.MethodPost, b.documentPath(kind, ""), m{"apiVersion": d.version.String(), "kind": string(kind), "metadata": m{"name": name}, "spec": spec})
		}
	}
}
