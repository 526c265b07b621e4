//go:build k8s

package kubernetes

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/discovery/kubernetes/kubetest"
	"github.com/heddle-mesh/heddle/discovery/manifest"
)

// server is the API server of all tests of the package; each works in its own namespaces.
var server *kubetest.Server

func TestMain(m *testing.M) {
	os.Exit(kubetest.Main(func(s *kubetest.Server) int {
		server = s
		return m.Run()
	}))
}

// benches counts the benches: a test that runs again has another namespace.
var benches atomic.Int64

// patience is how long anything may take that a test waits for.
const patience = 2 * time.Minute

// bench is a source on the API server, and the mesh behind it.
type bench struct {
	t        *testing.T
	server   *kubetest.Server
	ns       string // of the test
	config   Config
	source   *Source
	store    *mesh.Store
	gate     *gate
	requests *requests
	log      *lines

	mu      sync.Mutex // guards what follows
	refuse  func([]mesh.Change) error
	submits [][]mesh.Change
	moved   chan struct{} // closed at the next submit
}

func newBench(t *testing.T) *bench { return newBenchOn(t, server) }

func newBenchOn(t *testing.T, server *kubetest.Server) *bench {
	b := &bench{t: t, server: server, ns: fmt.Sprintf("%s-%d", strings.ToLower(t.Name()), benches.Add(1)), gate: newGate(), requests: &requests{}, log: new(lines), moved: make(chan struct{})}
	b.store = mesh.NewStore(mesh.DefaultMeshConfig())
	b.config = DefaultConfig()
	b.config.REST = b.server.Admin()
	b.config.Options = manifest.Options{TrustDomain: "shop.example", ClusterDomain: "cluster.local"}
	b.config.Retry = 100 * time.Millisecond
	b.config.Submit = b.submit
	b.config.Log = slog.New(slog.NewTextHandler(b.log, nil))
	b.namespace(b.ns)
	t.Cleanup(func() { // so that the next test's pods have their addresses for themselves
		_ = b.server.Do(context.Background(), http.MethodDelete, b.path("pods"), m{"gracePeriodSeconds": 0}, nil)
	})
	return b
}

// start runs a source until the test ends. It does not wait until it is synced.
func (b *bench) start() *bench {
	b.t.Helper()
	b.config.REST.Dial = b.gate.dial
	b.config.REST.Wrap(b.requests.wrap)
	var err error
	if b.source, err = New(b.config); err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.source.Run(ctx) }()
	b.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Error(err)
		}
		if b.t.Failed() {
			b.t.Log(b.log.String())
		}
	})
	return b
}

func (b *bench) synced() *bench {
	b.t.Helper()
	select {
	case <-b.source.Synced():
	case <-time.After(patience):
		b.t.Fatalf("not synced\n%s", b.log)
	}
	return b
}

func (b *bench) submit(changes []mesh.Change) (uint64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.refuse != nil {
		if err := b.refuse(changes); err != nil {
			return 0, err
		}
	}
	if err := b.store.Apply(changes, nil); err != nil {
		return 0, err
	}
	b.submits = append(b.submits, changes)
	close(b.moved)
	b.moved = make(chan struct{})
	return b.store.Snapshot().Revision, nil
}

// mark counts the submits until now; since gives the references changed after a mark.
func (b *bench) mark() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.submits)
}

func (b *bench) since(mark int) (refs []mesh.Ref) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, changes := range b.submits[mark:] {
		for _, c := range changes {
			refs = append(refs, c.Ref)
		}
	}
	return refs
}

// await waits until the mesh is as it should be.
func (b *bench) await(what string, ok func(*mesh.Snapshot) bool) {
	b.t.Helper()
	deadline := time.After(patience)
	for {
		b.mu.Lock()
		moved := b.moved
		b.mu.Unlock()
		if ok(b.store.Snapshot()) {
			return
		}
		select {
		case <-moved:
		case <-deadline:
			b.t.Fatalf("%s: it did not come to that", what)
		}
	}
}

// awaitRejected waits until exactly those objects are rejected, and gives the rejections.
func (b *bench) awaitRejected(refs ...mesh.Ref) map[mesh.Ref]Rejection {
	b.t.Helper()
	deadline := time.After(patience)
	for {
		all, changed := b.source.Rejected()
		found := 0
		for _, r := range refs {
			if _, ok := all[r]; ok {
				found++
			}
		}
		if found == len(refs) && len(all) == found {
			return all
		}
		select {
		case <-changed:
		case <-deadline:
			b.t.Fatalf("rejected are %v, want %v", all, refs)
		}
	}
}

func (b *bench) name(name string) mesh.Name { return mesh.Name{Namespace: b.ns, Name: name} }

func (b *bench) ref(kind mesh.Kind, name string) mesh.Ref {
	return mesh.Ref{Kind: kind, Name: b.name(name)}
}

// do sends a request to the API server that must succeed.
func (b *bench) do(method, path string, body any) {
	b.t.Helper()
	if err := b.server.Do(b.t.Context(), method, path, body, nil); err != nil {
		b.t.Fatal(err)
	}
}
