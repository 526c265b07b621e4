//go:build k8s

package kubernetes

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
)

// populate makes a Service with a pod of the mesh, and waits until the mesh has it.
func (b *bench) populate(name, ip string) {
	b.t.Helper()
	b.service(name, m{})
	uid := b.running(name+"-0", podSpec{}, ip)
	b.slice(name, name+"-s", endpointAt(ip, name+"-0", uid))
	b.await(name+" is served", func(s *mesh.Snapshot) bool { return b.served(s, name) })
}

func (b *bench) served(s *mesh.Snapshot, name string) bool {
	svc := s.Services.Get(b.name(name))
	return svc != nil && len(s.Members(svc)) == 1
}

// TestServerAway: while the API server is away nothing changes, which is said once; what
// happened meanwhile comes after, and nothing else.
func TestServerAway(t *testing.T) {
	b := newBench(t).start().synced()
	b.populate("before", "10.10.0.1")
	mark := b.mark()
	server.Kill()
	b.awaitLog("the API server cannot be reached")
	if err := server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.service("after", m{})
	b.await("a change after it", func(s *mesh.Snapshot) bool { return s.Services.Get(b.name("after")) != nil })
	if got := b.own(b.since(mark)); len(got) != 1 || got[0] != b.ref(mesh.KindService, "after") {
		t.Errorf("changed are %v, want the new service only", got)
	}
	if !b.served(b.store.Snapshot(), "before") {
		t.Error("what was there is not any more")
	}
	b.awaitLog("the API server is back")
	if n := strings.Count(b.log.String(), "cannot be reached"); n != 1 {
		t.Errorf("one outage is told %d times:\n%s", n, b.log)
	}
}

// TestCompactedWatch: changes are missed, and etcd has forgotten them when the watch comes
// back: all is read again, and only what differs is submitted.
func TestCompactedWatch(t *testing.T) {
	b := newBench(t).start().synced()
	b.populate("stays", "10.11.0.1")
	b.populate("goes", "10.11.0.2")
	b.populate("alters", "10.11.0.3")
	mark := b.mark()
	b.gate.cut()
	b.awaitLog("the API server cannot be reached")
	b.do(http.MethodDelete, b.path("services/goes"), nil)
	b.do(http.MethodPatch, b.path("services/alters"), m{"spec": m{"publishNotReadyAddresses": true}})
	b.service("comes", m{})
	// The API server's own memory of the changes goes with it.
	server.Kill()
	if err := server.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := server.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.requests.take()
	b.gate.mend()
	b.await("all three changes", func(s *mesh.Snapshot) bool {
		a := s.Services.Get(b.name("alters"))
		return s.Services.Get(b.name("goes")) == nil && s.Services.Get(b.name("comes")) != nil && a.PublishNotReady
	})
	want := []mesh.Ref{b.ref(mesh.KindService, "alters"), b.ref(mesh.KindService, "comes"), b.ref(mesh.KindService, "goes")}
	if got := b.own(b.since(mark)); !slices.Equal(got, want) {
		t.Errorf("changed are %v, want %v", got, want)
	}
	if lists, resets, _ := b.requests.take(); lists+resets == 0 {
		t.Error("nothing was read again: the watch went on, and the test shows nothing")
	}
}

// TestBrokenWatch: a watch that breaks goes on where it was.
func TestBrokenWatch(t *testing.T) {
	b := newBench(t).start().synced()
	b.populate("before", "10.12.0.1")
	b.requests.take()
	b.gate.cut()
	b.service("meanwhile", m{})
	b.gate.mend()
	b.await("a change meanwhile", func(s *mesh.Snapshot) bool { return s.Services.Get(b.name("meanwhile")) != nil })
	b.populate("after", "10.12.0.2")
	_, _, paths := b.requests.take()
	for _, path := range paths {
		// A watch that breaks in its first second without an event begins again, so that
		// only those count that have brought something.
		for _, resource := range []string{"/services?", "/pods?", "/endpointslices?"} {
			if strings.Contains(path, resource) {
				t.Errorf("read from the start again: %s", path)
			}
		}
	}
}

// TestNotAllowed: a mesh without some of its objects is none. The source says what it may
// not read, and goes on when it may.
func TestNotAllowed(t *testing.T) {
	b := newBench(t)
	var err error
	if b.config.REST, err = server.User("weak"); err != nil {
		t.Fatal(err)
	}
	role := func(name string, rules ...m) {
		b.do(http.MethodPost, "/apis/rbac.authorization.k8s.io/v1/clusterroles", m{"metadata": m{"name": name}, "rules": rules})
		b.do(http.MethodPost, "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", m{"metadata": m{"name": name},
			"roleRef":  m{"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
			"subjects": []m{{"kind": "User", "name": "weak", "apiGroup": "rbac.authorization.k8s.io"}}})
		t.Cleanup(func() {
			b.remove("/apis/rbac.authorization.k8s.io/v1/clusterroles/" + name)
			b.remove("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/" + name)
		})
	}
	watch := func(group string, resources ...string) m {
		return m{"apiGroups": []string{group}, "resources": resources, "verbs": []string{"list", "watch"}}
	}
	role("weak", watch("", "services", "nodes", "namespaces"), watch("discovery.k8s.io", "endpointslices"),
		watch("gateway.networking.k8s.io", "httproutes", "grpcroutes"), watch("mesh.heddle.dev", "authorizationpolicies", "meshconfigs"))
	b.start()
	b.awaitLog("the API server refuses a watch")
	if text := b.log.String(); !strings.Contains(text, "/api/v1/pods") || !strings.Contains(text, "forbidden") {
		t.Errorf("log does not say what is not allowed:\n%s", text)
	}
	select {
	case <-b.source.Synced():
		t.Fatal("synced without pods")
	default:
	}
	if b.mark() != 0 {
		t.Error("half of a mesh was submitted")
	}
	role("weak-no-more", watch("", "pods"))
	b.synced()
}

// own keeps the references of the test's namespace, each once and in order.
func (b *bench) own(refs []mesh.Ref) []mesh.Ref {
	refs = slices.DeleteFunc(slices.Clone(refs), func(r mesh.Ref) bool { return r.Namespace != b.ns })
	slices.SortFunc(refs, mesh.Ref.Compare)
	return slices.Compact(refs)
}

// awaitLog waits until the log says something.
func (b *bench) awaitLog(text string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	if !b.log.await(ctx, text) {
		b.t.Fatalf("the log does not say %q:\n%s", text, b.log)
	}
}
