package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/discovery/api/apipb"
	"github.com/heddle-mesh/heddle/discovery/manifest"
	"github.com/heddle-mesh/heddle/discovery/state"
	"github.com/heddle-mesh/heddle/identity/spiffeid"
)

// plane is a control plane's part of this package, on a Unix socket.
type plane struct {
	t         *testing.T
	dir       string
	grace     time.Duration
	store     *mesh.Store
	writer    *state.Writer
	objects   apipb.ObjectsClient
	workloads apipb.WorkloadsClient
	moved     chan struct{}
	settled   func(context.Context, uint64) error // nil: there are no proxies
	stop      func()
}

func newPlane(t *testing.T, grace time.Duration) *plane {
	p := &plane{t: t, dir: t.TempDir(), grace: grace}
	p.start()
	return p
}

var options = manifest.Options{TrustDomain: "shop.example"}

// callerOf stands for the SVID of the connection: tests have none and say who they are.
func callerOf(ctx context.Context) (spiffeid.ID, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	if got := md.Get("test-service"); len(got) == 1 {
		return spiffeid.New("shop.example", "default", got[0])
	}
	return spiffeid.ID{}, errors.New("no certificate")
}

func (p *plane) start() {
	p.t.Helper()
	db, err := state.Open(p.dir, state.DefaultConfig())
	must(p.t, err)
	p.store, p.moved = mesh.NewStore(mesh.DefaultMeshConfig()), make(chan struct{}, 1000)
	p.writer = state.NewWriter(db, func(changes []mesh.Change) (uint64, map[mesh.Ref][]string, error) {
		err := p.store.Apply(changes, nil)
		p.moved <- struct{}{}
		return p.store.Snapshot().Revision, map[mesh.Ref][]string{changes[0].Ref: {"a warning"}}, err
	})
	changes, bad, err := p.writer.Load("", Decode(options))
	must(p.t, errors.Join(append(bad, err)...))
	must(p.t, p.store.Apply(changes, nil))
	server, err := NewServer(Config{Writer: p.writer, Options: options, Identity: callerOf, Grace: p.grace, Settled: p.settled,
		Log: slog.New(slog.DiscardHandler), Status: func(mesh.Ref) any { return map[string]int{"live": 3} }})
	must(p.t, err)
	// A socket's path is at most 108 bytes long.
	listener, err := net.Listen("unix", filepath.Join(p.t.TempDir(), "s"))
	must(p.t, err)
	g := grpc.NewServer(grpc.MaxRecvMsgSize(MaxMessage))
	apipb.RegisterObjectsServer(g, server)
	apipb.RegisterWorkloadsServer(g, server)
	served, ran := make(chan error, 1), make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { served <- g.Serve(listener) }()
	go func() { ran <- server.Run(ctx) }()
	conn, err := grpc.NewClient("unix:"+listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(p.t, err)
	p.objects, p.workloads = apipb.NewObjectsClient(conn), apipb.NewWorkloadsClient(conn)
	stopped := false
	p.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		must(p.t, errors.Join(conn.Close(), <-ran))
		g.Stop()
		must(p.t, errors.Join(<-served, db.Close()))
	}
	p.t.Cleanup(p.stop)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (p *plane) apply(text string) (*apipb.ApplyReply, error) {
	return p.objects.Apply(p.t.Context(), &apipb.ApplyRequest{Documents: []byte(text), Source: "test.yaml"})
}

func (p *plane) get(r *apipb.GetRequest) ([]string, error) {
	stream, err := p.objects.Get(p.t.Context(), r)
	must(p.t, err)
	var out []string
	for {
		d, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		out = append(out, string(d.GetJson()))
	}
}

// wait blocks until the mesh is as cond says.
func (p *plane) wait(what string, cond func(*mesh.Snapshot) bool) {
	p.t.Helper()
	deadline := time.After(10 * time.Second)
	for !cond(p.store.Snapshot()) {
		select {
		case <-p.moved:
		case <-deadline:
			p.t.Fatalf("waited in vain for: %s", what)
		}
	}
}

func wantCode(t *testing.T, err error, code codes.Code, text string) {
	t.Helper()
	if status.Code(err) != code || !strings.Contains(fmt.Sprint(err), text) {
		t.Errorf("error %v, want %s with %q", err, code, text)
	}
}

func service(name string, port int) string {
	return fmt.Sprintf("---\napiVersion: v1\nkind: Service\nmetadata: {name: %s}\nspec: {selector: {app: %s}, ports: [{port: %d}]}\n", name, name, port)
}

func TestApplyGetDelete(t *testing.T) {
	p := newPlane(t, time.Minute)
	reply, err := p.apply(service("api", 80) + service("db", 5432))
	must(t, err)
	if len(reply.GetResults()) != 2 || reply.GetRevision() != 1 || reply.GetResults()[0].GetAction() != apipb.Result_CREATED ||
		len(reply.GetResults()[0].GetWarnings()) != 1 {
		t.Fatalf("reply %v", reply)
	}
	p.stop()
	p.start()
	svc := p.store.Snapshot().Services.Get(mesh.Name{Namespace: "default", Name: "api"})
	if svc == nil || svc.Generation != 1 || len(svc.VirtualIPs) != 2 {
		t.Fatalf("after a restart: %+v", svc)
	}
	reply, err = p.objects.Apply(t.Context(), &apipb.ApplyRequest{Documents: []byte(service("api", 81) + service("new", 1)), DryRun: true})
	must(t, err)
	if r := reply.GetResults(); r[0].GetAction() != apipb.Result_CONFIGURED || r[0].GetGeneration() != 2 || r[1].GetAction() != apipb.Result_CREATED {
		t.Errorf("dry run %v", reply)
	}
	docs, err := p.get(&apipb.GetRequest{Kind: "Service"})
	must(t, err)
	if len(docs) != 2 || !strings.Contains(docs[0], `"port":80`) || !strings.Contains(docs[0], `"status":{"live":3}`) || !strings.Contains(docs[0], `"generation":1`) {
		t.Errorf("documents %s", docs)
	}
	if _, err := p.apply(docs[0]); err != nil {
		t.Errorf("what Get gives cannot be applied: %v", err)
	}
	_, err = p.get(&apipb.GetRequest{Kind: "Service", Name: "none"})
	wantCode(t, err, codes.NotFound, "Service default/none")
	_, err = p.get(&apipb.GetRequest{Kind: "Pod"})
	wantCode(t, err, codes.InvalidArgument, "no kind")
	reply, err = p.objects.Delete(t.Context(), &apipb.DeleteRequest{Refs: []*apipb.Ref{{Kind: "Service", Name: "db"}, {Kind: "Service", Name: "none"}}})
	must(t, err)
	if r := reply.GetResults(); r[0].GetAction() != apipb.Result_DELETED || r[1].GetAction() != apipb.Result_NOT_FOUND {
		t.Errorf("delete %v", reply)
	}
	if p.store.Snapshot().Services.Len() != 1 {
		t.Error("the mesh has the deleted service still")
	}
}

func TestBadInputChangesNothing(t *testing.T) {
	p := newPlane(t, time.Minute)
	for _, tc := range []struct {
		name, input string
		code        codes.Code
		want        string
	}{
		{"nothing", "# nothing", codes.InvalidArgument, "no objects"},
		{"one of two is wrong", service("api", 80) + service("db", 0), codes.InvalidArgument, "test.yaml:10: Service default/db: spec.ports[0].port: 0 is out of range"},
		{"duplicate", service("api", 80) + service("api", 81), codes.InvalidArgument, "the same object"},
		{"control character", "kind: \x01", codes.InvalidArgument, "U+0001"},
		{"huge object", "kind: " + strings.Repeat("x", manifest.MaxObject), codes.InvalidArgument, "at most"},
		{"huge message", strings.Repeat("#", MaxMessage), codes.ResourceExhausted, "larger than max"},
		{"many errors", strings.Repeat("---\n- "+strings.Repeat("x", 1000)+"\n", 5000), codes.InvalidArgument, "more"},
		{"workload", "apiVersion: mesh.heddle.dev/v1alpha1\nkind: Workload\nmetadata: {name: x}\n", codes.InvalidArgument, "registration"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := p.apply(tc.input)
			wantCode(t, err, tc.code, tc.want)
			if tc.code == codes.InvalidArgument && len(Problems(err)) == 0 {
				t.Error("no details")
			}
		})
	}
	if p.store.Snapshot().Revision != 0 {
		t.Error("something changed")
	}
}

func TestObjectOfAFile(t *testing.T) {
	p := newPlane(t, time.Minute)
	objects, err := manifest.Parse("", []byte(service("api", 80)), options)
	must(t, err)
	_, err = p.writer.Write(state.Batch{Put: []state.Item{{Object: objects[0].Object, Document: objects[0].Document, File: "/mesh/api.yaml"}}})
	must(t, err)
	_, err = p.apply(service("api", 81))
	wantCode(t, err, codes.FailedPrecondition, "/mesh/api.yaml")
	_, err = p.objects.Delete(t.Context(), &apipb.DeleteRequest{Refs: []*apipb.Ref{{Kind: "Service", Name: "api"}}})
	wantCode(t, err, codes.FailedPrecondition, "/mesh/api.yaml")
}
