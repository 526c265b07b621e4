//go:build k8s

package kubernetes

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
)

// TestPodsOfTheMesh: a pod is a workload from when it has an address until it has ended,
// and only with its sidecar.
func TestPodsOfTheMesh(t *testing.T) {
	b := newBench(t).start().synced()
	has := func(name string) func(*mesh.Snapshot) bool {
		return func(s *mesh.Snapshot) bool { return s.Workloads.Get(b.name(name)) != nil }
	}
	b.running("plain", podSpec{plain: true}, "10.3.0.1")
	b.running("host", podSpec{host: true}, "10.3.0.2")
	b.pod("job", podSpec{node: "pods-node"})
	b.status("job", "Pending", "10.3.0.3")
	b.await("a pod that starts is in the mesh", has("job"))
	for _, name := range []string{"plain", "host"} {
		if has(name)(b.store.Snapshot()) {
			t.Errorf("pod %s is in the mesh", name)
		}
		if _, ok := b.source.Pod(b.ns, name); !ok {
			t.Errorf("pod %s is not known", name)
		}
	}
	if w := b.store.Snapshot().Workloads.Get(b.name("job")); w.Zone != "" || !w.Pod || w.Capture != mesh.Transparent || w.Identity.ServiceAccount() != "default" {
		t.Errorf("workload is %+v", w)
	}
	b.node("pods-node", "zone-b")
	b.await("the node's zone is the pod's", func(s *mesh.Snapshot) bool { return s.Workloads.Get(b.name("job")).Zone == "zone-b" })
	b.remove("/api/v1/nodes/pods-node")
	b.await("a node that vanished has no zone, its pods stay", func(s *mesh.Snapshot) bool {
		w := s.Workloads.Get(b.name("job"))
		return w != nil && w.Zone == ""
	})
	b.status("job", "Succeeded", "10.3.0.3")
	b.await("a pod that has ended is not in the mesh", func(s *mesh.Snapshot) bool { return !has("job")(s) })
	b.deletePod("job")
	b.running("after", podSpec{}, "10.3.0.4")
	b.await("a later pod", has("after"))
	if _, ok := b.source.Pod(b.ns, "job"); ok {
		t.Error("a deleted pod is known")
	}
}

// TestAddressReused: the address of a pod is another's at once. There is no snapshot in
// which both have it, nor one in which an endpoint leads to a pod that is not meant.
func TestAddressReused(t *testing.T) {
	b := newBench(t).start().synced()
	const ip = "10.4.0.1"
	first := b.running("first", podSpec{account: "first"}, ip)
	b.slice("first", "first-s", endpointAt(ip, "first", first))
	b.await("the first is served", func(s *mesh.Snapshot) bool {
		e := s.Slices.Get(b.name("first-s"))
		return e != nil && len(e.Endpoints) == 1 && s.Workloads.Get(b.name("first")) != nil
	})
	mark := b.mark()
	// Its node is lost: the pod stays as it was, ending, and its address is given out again.
	b.do(http.MethodPatch, b.path("pods/first"), m{"metadata": m{"finalizers": []string{"test.example/node-is-gone"}}})
	b.deletePod("first")
	second := b.running("second", podSpec{account: "second"}, ip)
	b.slice("second", "second-s", endpointAt(ip, "second", second))
	b.await("the second has the address", func(s *mesh.Snapshot) bool {
		w, e := s.Workloads.Get(b.name("second")), s.Slices.Get(b.name("second-s"))
		return w != nil && e != nil && len(e.Endpoints) == 1
	})
	s := b.store.Snapshot()
	if w := s.Workloads.Get(b.name("first")); w != nil {
		t.Errorf("the first has %v still", w.Addresses)
	}
	if e := s.Slices.Get(b.name("first-s")).Endpoints; len(e) != 0 {
		t.Errorf("the first's slice leads to %+v", e)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, changes := range b.submits[mark:] {
		set, removed := false, false
		for _, c := range changes {
			set = set || c.Object != nil && c.Ref == b.ref(mesh.KindWorkload, "second")
			removed = removed || c.Object == nil && c.Ref == b.ref(mesh.KindWorkload, "first")
		}
		if set != removed {
			t.Errorf("one submit has the second %v and the end of the first %v, want both together", set, removed)
		}
		if set {
			return
		}
	}
}

// TestSliceAheadOfItsPod: an endpoint waits for the pod that its UID means, and goes with
// it: else it would be taken for one outside of the mesh.
func TestSliceAheadOfItsPod(t *testing.T) {
	b := newBench(t).start().synced()
	const ip = "10.5.0.1"
	b.service("set", m{"clusterIP": "None"})
	old := b.running("set-0", podSpec{}, ip)
	b.await("the pod", func(s *mesh.Snapshot) bool { return s.Workloads.Get(b.name("set-0")) != nil })
	b.slice("set", "set-s", endpointAt(ip, "set-0", old), endpointAt("10.5.0.2", "set-1", "of-a-pod-to-come"))
	endpoints := func(n int) func(*mesh.Snapshot) bool {
		return func(s *mesh.Snapshot) bool {
			e := s.Slices.Get(b.name("set-s"))
			return e != nil && len(e.Endpoints) == n
		}
	}
	b.await("the endpoint of the pod that is there", endpoints(1))
	b.deletePod("set-0")
	b.await("the endpoint goes with its pod", endpoints(0))
	if b.store.Snapshot().Workloads.Get(b.name("set-0")) != nil {
		t.Error("the pod is there, its endpoint is not")
	}
	again := b.running("set-0", podSpec{}, ip)
	b.await("another pod of the name", func(s *mesh.Snapshot) bool { return s.Workloads.Get(b.name("set-0")) != nil })
	if !endpoints(0)(b.store.Snapshot()) {
		t.Error("the endpoint of the pod before is taken for the new one's")
	}
	b.do(http.MethodPut, b.slicePath("/set-s"), sliceOf("set", "set-s", endpointAt(ip, "set-0", again)))
	b.await("the new pod's endpoint", endpoints(1))
}

// TestAwaitPod: the agent of a pod may ask before the watch has brought it.
func TestAwaitPod(t *testing.T) {
	b := newBench(t).start().synced()
	old := b.running("set-0", podSpec{account: "old"}, "10.6.0.1")
	if p, err := b.source.AwaitPod(t.Context(), b.ns, "set-0", old); err != nil || p.ServiceAccount != "old" {
		t.Fatalf("pod is %+v, %v", p, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := b.source.AwaitPod(ctx, b.ns, "set-0", "another-uid"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v for a UID that nobody has", err)
	}
	b.gate.cut()
	b.deletePod("set-0")
	next := b.running("set-0", podSpec{account: "new"}, "10.6.0.1")
	type answer struct {
		pod Pod
		err error
	}
	answers := make(chan answer)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		p, err := b.source.AwaitPod(ctx, b.ns, "set-0", next)
		answers <- answer{p, err}
	}()
	b.gate.mend()
	if a := <-answers; a.err != nil || a.pod.UID != next || a.pod.ServiceAccount != "new" {
		t.Errorf("pod is %+v, %v; want that of UID %s", a.pod, a.err, next)
	}
}
