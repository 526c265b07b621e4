//go:build k8s

package kubernetes

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/discovery/manifest"
)

// routeTo is the spec of an HTTPRoute of a service, to another one.
func routeTo(parent, backend string, more ...m) m {
	parents := append([]m{{"group": "", "kind": "Service", "name": parent}}, more...)
	return m{"parentRefs": parents, "rules": []m{{"backendRefs": []m{{"name": backend, "port": 80}}}}}
}

// TestRejectedRoute: what cannot be read is said, with the field, and keeps nobody else
// out; the last good value stays in force.
func TestRejectedRoute(t *testing.T) {
	b := newBench(t)
	b.install(mesh.KindHTTPRoute)
	bad := routeTo("a", "b")
	bad["rules"].([]m)[0]["backendRefs"].([]m)[0]["wieght"] = 1
	b.document(mesh.KindHTTPRoute, "bad", bad)
	b.document(mesh.KindHTTPRoute, "good", routeTo("a", "b"))
	b.document(mesh.KindHTTPRoute, "gateway", m{"parentRefs": []m{{"name": "front"}}, "hostnames": []string{"shop.example"}})
	b.document(mesh.KindHTTPRoute, "both", routeTo("a", "b", m{"name": "front", "kind": "Gateway", "sectionName": "https"}))
	b.start().synced()
	ref := b.ref(mesh.KindHTTPRoute, "bad")
	why := b.awaitRejected(ref)[ref]
	var list manifest.Errors
	if !errors.As(why.Err, &list) || list[0].Field != "spec.rules[0].backendRefs[0].wieght" || !strings.Contains(why.Err.Error(), "did you mean weight?") ||
		strings.Contains(why.Err.Error(), "line") || why.Generation != 1 {
		t.Errorf("rejected for %v (generation %d)", why.Err, why.Generation)
	}
	s := b.store.Snapshot()
	for name, want := range map[string]bool{"bad": false, "good": true, "gateway": false, "both": true} {
		if got := s.HTTPRoutes.Get(b.name(name)) != nil; got != want {
			t.Errorf("route %s is in the mesh: %v, want %v", name, got, want)
		}
	}
	if r := s.HTTPRoutes.Get(b.name("good")); r.Created == 0 || r.Generation != 1 {
		t.Errorf("created %d, generation %d", r.Created, r.Generation)
	}
	b.do(http.MethodPatch, b.documentPath(mesh.KindHTTPRoute, "good"), m{"spec": m{"nonsense": true}})
	good := b.ref(mesh.KindHTTPRoute, "good")
	if r := b.awaitRejected(ref, good)[good]; r.Generation != 2 {
		t.Errorf("rejected is generation %d", r.Generation)
	}
	b.document(mesh.KindHTTPRoute, "later", routeTo("a", "b"))
	b.await("a later route", func(s *mesh.Snapshot) bool { return s.HTTPRoutes.Get(b.name("later")) != nil })
	if r := b.store.Snapshot().HTTPRoutes.Get(b.name("good")); r == nil || r.Generation != 1 {
		t.Errorf("in force is %+v, want the last good value", r)
	}
	b.do(http.MethodPatch, b.documentPath(mesh.KindHTTPRoute, "good"), m{"spec": m{"nonsense": nil}})
	b.do(http.MethodDelete, b.documentPath(mesh.KindHTTPRoute, "bad"), nil)
	b.awaitRejected()
	b.await("the good one again", func(s *mesh.Snapshot) bool { return s.HTTPRoutes.Get(b.name("good")).Generation == 3 })
}

// TestMalformedPolicy: a policy that cannot be read is no open door. Its last good value
// stays; where there is none, as at the start, it is closed.
func TestMalformedPolicy(t *testing.T) {
	b := newBench(t)
	b.install(mesh.KindAuthorizationPolicy)
	allow := m{"targetRefs": []m{{"kind": "Service", "name": "db"}}, "rules": []m{{"from": []m{{"namespace": b.ns}}}}}
	b.document(mesh.KindAuthorizationPolicy, "good", allow)
	b.document(mesh.KindAuthorizationPolicy, "bad", m{"targetRefs": []m{{"kind": "Service", "name": "db"}}, "rulez": 1})
	b.start().synced()
	good, bad := b.ref(mesh.KindAuthorizationPolicy, "good"), b.ref(mesh.KindAuthorizationPolicy, "bad")
	if why := b.awaitRejected(bad)[bad].Err.Error(); !strings.Contains(why, "did you mean rules?") || !strings.HasSuffix(why, "until it is mended it allows no call to service db") {
		t.Errorf("rejected for %s", why)
	}
	p := b.store.Snapshot().Policies.Get(b.name("bad"))
	if p == nil || p.Deny || len(p.Rules) > 0 || len(p.Targets) != 1 || p.Targets[0] != b.name("db") || p.Generation != 1 {
		t.Fatalf("in force is %+v", p)
	}

	b.do(http.MethodPatch, b.documentPath(mesh.KindAuthorizationPolicy, "good"), m{"spec": m{"nonsense": true}})
	if why := b.awaitRejected(bad, good)[good].Err.Error(); strings.Contains(why, "until it is mended") {
		t.Errorf("the good one is rejected for %s", why)
	}
	b.do(http.MethodPatch, b.documentPath(mesh.KindAuthorizationPolicy, "bad"), m{"spec": m{"action": "Refuse", "targetRefs": nil}})
	b.await("what is closed follows the object", func(s *mesh.Snapshot) bool {
		p := s.Policies.Get(b.name("bad"))
		return p.Deny && len(p.Rules) == 1 && len(p.Targets) == 0 && p.Generation == 2
	})
	if why := b.awaitRejected(bad, good)[bad].Err.Error(); !strings.HasSuffix(why, "it refuses all calls to any service of its namespace") {
		t.Errorf("rejected for %s", why)
	}
	if p := b.store.Snapshot().Policies.Get(b.name("good")); len(p.Rules) != 1 || p.Generation != 1 {
		t.Errorf("the last good value is not in force: %+v", p)
	}

	b.do(http.MethodPatch, b.documentPath(mesh.KindAuthorizationPolicy, "bad"), m{"spec": m{"action": nil, "rulez": nil, "rules": []m{{}}}})
	b.awaitRejected(good)
	b.await("the mended one", func(s *mesh.Snapshot) bool {
		p := s.Policies.Get(b.name("bad"))
		return !p.Deny && len(p.Rules) == 1 && p.Generation == 3
	})
	b.do(http.MethodDelete, b.documentPath(mesh.KindAuthorizationPolicy, "good"), nil)
	b.awaitRejected()
	b.await("one policy", func(s *mesh.Snapshot) bool { return s.Policies.Get(b.name("good")) == nil })
}

// TestKindInstalledLater: a kind may come after the source, go, and come again.
func TestKindInstalledLater(t *testing.T) {
	b := newBench(t).start().synced()
	policy := m{"rules": []m{{"from": []m{{"namespace": b.ns}}}}}
	has := func(s *mesh.Snapshot) bool { return s.Policies.Get(b.name("only-us")) != nil }
	for range 2 {
		b.install(mesh.KindAuthorizationPolicy)
		b.document(mesh.KindAuthorizationPolicy, "only-us", policy)
		b.await("a policy", has)
		b.gate.cut() // so that the source misses how it goes
		b.uninstall(mesh.KindAuthorizationPolicy)
		if !has(b.store.Snapshot()) {
			t.Error("the policy went before anybody said so")
		}
		b.gate.mend()
		b.await("no policy", func(s *mesh.Snapshot) bool { return !has(s) })
	}
	b.install(mesh.KindMeshConfig)
	b.document(mesh.KindMeshConfig, "mesh", m{"accessLog": false})
	b.await("settings", func(s *mesh.Snapshot) bool { return !s.Config.AccessLog })
	if s := b.store.Snapshot().Config; s.TrustDomain != "shop.example" {
		t.Errorf("trust domain %q", s.TrustDomain)
	}
	b.do(http.MethodDelete, b.documentPath(mesh.KindMeshConfig, "mesh"), nil)
	b.await("the defaults", func(s *mesh.Snapshot) bool { return s.Config.AccessLog })
}

// TestNamespaceEnds: the policies of a namespace that is being deleted hold until it is
// gone, whatever vanishes first.
func TestNamespaceEnds(t *testing.T) {
	b := newBench(t)
	b.install(mesh.KindAuthorizationPolicy)
	b.document(mesh.KindAuthorizationPolicy, "only-us", m{"rules": []m{{"from": []m{{"namespace": b.ns}}}}})
	b.start().synced()
	b.populate("api", "10.13.0.1")
	b.do(http.MethodDelete, "/api/v1/namespaces/"+b.ns, nil)
	b.await("the namespace is known to end", func(*mesh.Snapshot) bool {
		_, ending, _ := b.source.kinds.namespaces.lookup(mesh.Name{Name: b.ns})
		return ending
	})
	b.do(http.MethodDelete, b.documentPath(mesh.KindAuthorizationPolicy, "only-us"), nil)
	b.do(http.MethodDelete, b.path("services/api"), nil)
	b.await("the service is gone", func(s *mesh.Snapshot) bool { return s.Services.Get(b.name("api")) == nil })
	b.deletePod("api-0")
	b.await("the pod is gone", func(s *mesh.Snapshot) bool { return s.Workloads.Get(b.name("api-0")) == nil })
	if b.store.Snapshot().Policies.Get(b.name("only-us")) == nil {
		t.Error("the policy went before the namespace")
	}
	b.do(http.MethodPut, "/api/v1/namespaces/"+b.ns+"/finalize", m{"apiVersion": "v1", "kind": "Namespace", "metadata": m{"name": b.ns}, "spec": m{}})
	b.await("the policy is gone with its namespace", func(s *mesh.Snapshot) bool { return s.Policies.Get(b.name("only-us")) == nil })
}

// TestRefusedByTheMesh: one object that the mesh cannot take is left out and named; the
// others go in, and it is taken when the mesh can.
func TestRefusedByTheMesh(t *testing.T) {
	b := newBench(t)
	for _, name := range []string{"a", "b", "c", "d", "poison", "x", "y"} {
		b.service(name, m{})
	}
	poison := b.ref(mesh.KindService, "poison")
	b.refuse = func(changes []mesh.Change) error {
		for _, c := range changes {
			if c.Ref == poison {
				return errors.New("translate: no")
			}
		}
		return nil
	}
	b.start().synced()
	if r := b.awaitRejected(poison)[poison]; !strings.Contains(r.Err.Error(), "translate: no") {
		t.Errorf("rejected for %v", r.Err)
	}
	for _, name := range []string{"a", "b", "c", "d", "x", "y"} {
		if b.store.Snapshot().Services.Get(b.name(name)) == nil {
			t.Errorf("service %s is not in the mesh", name)
		}
	}
	b.mu.Lock()
	b.refuse = nil
	b.mu.Unlock()
	b.await("it is taken in the end", func(s *mesh.Snapshot) bool { return s.Services.Get(b.name("poison")) != nil })
	b.awaitRejected()
}
