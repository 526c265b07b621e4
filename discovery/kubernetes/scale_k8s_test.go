//go:build k8s

package kubernetes

import (
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
)

const (
	scaleServices   = 1000
	endpointsOfEach = 5
)

// TestScale fills the API server and reports how long a source takes to be synced and what
// it keeps. Then it shows that nothing is read anew while things change.
func TestScale(t *testing.T) {
	if testing.Short() {
		t.Skip("makes 12,000 objects")
	}
	b := newBench(t)
	for _, d := range documentKinds { // all of them: one that is missing is asked for from time to time
		b.install(d.kind)
	}
	began := time.Now()
	b.fill()
	t.Logf("%d services, slices of %d endpoints each and their pods made in %.1f s", scaleServices, endpointsOfEach, time.Since(began).Seconds())

	before := heap()
	began = time.Now()
	b.start().synced()
	took := time.Since(began)
	s := b.store.Snapshot()
	members := 0
	for _, svc := range s.Services.All() {
		if svc.Namespace == b.ns {
			members += len(s.Members(svc))
		}
	}
	if members != scaleServices*endpointsOfEach {
		t.Errorf("%d endpoints are workloads of the mesh, want %d", members, scaleServices*endpointsOfEach)
	}
	lists, streams, _ := b.requests.take()
	t.Logf("synced in %.2f s with %d submits, by %d streams and %d lists; heap %+.1f MiB, the mesh's model included",
		took.Seconds(), b.mark(), streams, lists, float64(heap()-before)/(1<<20))

	for i := range 200 {
		name := fmt.Sprintf("s%d", i)
		b.do(http.MethodPatch, b.path("services/"+name), m{"spec": m{"publishNotReadyAddresses": true}})
		b.status(name+"-0", "Running", podAddress(i, 0)) // which changes nothing
		b.deletePod(name + "-1")
	}
	b.await("all changes", func(s *mesh.Snapshot) bool {
		svc := s.Services.Get(b.name("s199"))
		return svc.PublishNotReady && len(s.Members(svc)) == endpointsOfEach-1
	})
	if lists, streams, paths := b.requests.take(); lists+streams > 0 {
		t.Errorf("%d lists and %d streams from the start while things changed: %v", lists, streams, paths)
	}
}

func podAddress(service, i int) string {
	return fmt.Sprintf("10.%d.%d.%d", 100+service/250, service%250, i+1)
}

// fill makes the services with their slices and pods.
func (b *bench) fill() {
	b.t.Helper()
	var group errgroup.Group
	group.SetLimit(16)
	for i := range scaleServices {
		group.Go(func() error { return b.fillOne(i) })
	}
	if err := group.Wait(); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) fillOne(i int) error {
	ctx, name := b.t.Context(), fmt.Sprintf("s%d", i)
	var endpoints []m
	for j := range endpointsOfEach {
		pod := fmt.Sprintf("%s-%d", name, j)
		endpoints = append(endpoints, endpointAt(podAddress(i, j), pod, ""))
		status := m{"phase": "Running", "podIP": podAddress(i, j), "podIPs": []m{{"ip": podAddress(i, j)}}}
		if err := errors.Join(
			b.server.Do(ctx, http.MethodPost, b.path("pods"), podObject(pod, podSpec{node: fmt.Sprintf("n%d", i%50), account: name, labels: m{"app": name}}), nil),
			b.server.Do(ctx, http.MethodPatch, b.path("pods/"+pod+"/status"), m{"status": status}, nil)); err != nil {
			return err
		}
	}
	spec := m{"selector": m{"app": name}, "ports": []m{{"name": "http", "port": 80}}}
	return errors.Join(
		b.server.Do(ctx, http.MethodPost, b.path("services"), m{"metadata": m{"name": name}, "spec": spec}, nil),
		b.server.Do(ctx, http.MethodPost, b.slicePath(""), sliceOf(name, name+"-s", endpoints...), nil))
}

// heap is what is alive of the heap, in bytes.
func heap() int64 {
	runtime.GC()
	runtime.GC() // what finalizers kept the first time
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return int64(s.HeapAlloc)
}
