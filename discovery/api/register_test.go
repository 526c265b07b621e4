package api

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/discovery/api/apipb"
)

type registerStream = grpc.BidiStreamingClient[apipb.WorkloadState, apipb.RegisterReply]

// stream opens Register as the given service.
func (p *plane) stream(caller string) (registerStream, context.CancelFunc) {
	p.t.Helper()
	ctx, cancel := context.WithCancel(p.t.Context())
	stream, err := p.workloads.Register(metadata.AppendToOutgoingContext(ctx, "test-service", caller))
	must(p.t, err)
	return stream, cancel
}

func send(s registerStream, w *apipb.WorkloadState) error {
	if err := s.Send(w); err != nil {
		_, err = s.Recv() // the status
		return err
	}
	_, err := s.Recv()
	return err
}

func workload(service, name string) *apipb.Workload {
	return &apipb.Workload{Namespace: "default", Service: service, Name: name, Capture: "transparent",
		Addresses: []string{"10.68.0.2"}, Ports: []*apipb.WorkloadPort{{App: 8080}}, Ready: true}
}

func registerAs(w *apipb.Workload) *apipb.WorkloadState {
	return &apipb.WorkloadState{State: &apipb.WorkloadState_Workload{Workload: w}}
}

func ready(ready, draining bool) *apipb.WorkloadState {
	return &apipb.WorkloadState{State: &apipb.WorkloadState_Readiness{Readiness: &apipb.Readiness{Ready: ready, Draining: draining}}}
}

var bye = &apipb.WorkloadState{State: &apipb.WorkloadState_Bye{Bye: &apipb.Bye{}}}

func (p *plane) workload(name string) *mesh.Workload {
	return p.store.Snapshot().Workloads.Get(mesh.Name{Namespace: "default", Name: name})
}

func TestRegister(t *testing.T) {
	p := newPlane(t, time.Hour)
	_, err := p.apply(service("api", 80))
	must(t, err)
	s, _ := p.stream("api")
	must(t, send(s, registerAs(workload("api", "api-1"))))
	w := p.workload("api-1")
	if w == nil || !w.Ready || w.Labels["app"] != "api" || w.Identity.String() != "spiffe://shop.example/ns/default/sa/api" || w.Ports[0].Peer != 8080 {
		t.Fatalf("workload %+v", w)
	}
	snapshot := p.store.Snapshot()
	if len(snapshot.Members(snapshot.Services.Get(mesh.Name{Namespace: "default", Name: "api"}))) != 1 {
		t.Error("the service does not have it")
	}
	must(t, send(s, ready(true, true)))
	if p.workload("api-1").Ready {
		t.Error("draining and ready")
	}
	must(t, send(s, bye))
	if p.workload("api-1") != nil {
		t.Error("said bye and is there")
	}
	if docs, err := p.get(&apipb.GetRequest{Kind: "Workload"}); err != nil || len(docs) != 0 {
		t.Errorf("stored still: %s, %v", docs, err)
	}
}

func TestRegistrationOutlivesARestart(t *testing.T) {
	p := newPlane(t, time.Hour)
	for _, name := range []string{"api-1", "api-2"} {
		s, _ := p.stream("api")
		must(t, send(s, registerAs(workload("api", name))))
	}
	p.stop()
	p.grace = time.Second
	p.start()
	if p.workload("api-1") == nil || p.workload("api-2") == nil {
		t.Fatal("not there at the start")
	}
	s, _ := p.stream("api")
	must(t, send(s, registerAs(workload("api", "api-1"))))
	p.wait("api-2, which did not come back, to go", func(s *mesh.Snapshot) bool { return s.Workloads.Len() == 1 })
	if p.workload("api-1") == nil {
		t.Error("the wrong one went")
	}
}

func TestGraceAndTakeover(t *testing.T) {
	p := newPlane(t, 200*time.Millisecond)
	old, cut := p.stream("api")
	must(t, send(old, registerAs(workload("api", "api-1"))))
	// The agent comes back on a new stream while the old one hangs.
	again, cutAgain := p.stream("api")
	must(t, send(again, registerAs(workload("api", "api-1"))))
	wantCode(t, send(old, ready(false, false)), codes.Aborted, "another connection")
	cut()
	if w := p.workload("api-1"); w == nil || !w.Ready {
		t.Fatalf("the old stream had a say: %+v", w)
	}
	began := time.Now()
	cutAgain()
	p.wait("the workload to go", func(s *mesh.Snapshot) bool { return s.Workloads.Len() == 0 })
	if took := time.Since(began); took < p.grace {
		t.Errorf("it went after %s", took)
	}
}

func TestRegisterRefuses(t *testing.T) {
	p := newPlane(t, time.Hour)
	holder, _ := p.stream("api")
	must(t, send(holder, registerAs(workload("api", "api-1"))))
	with := func(change func(w *apipb.Workload)) *apipb.WorkloadState {
		w := workload("frontend", "frontend-1")
		change(w)
		return registerAs(w)
	}
	for _, tc := range []struct {
		name    string
		message *apipb.WorkloadState
		code    codes.Code
		want    string
	}{
		{"another service", with(func(w *apipb.Workload) { w.Service = "api" }), codes.PermissionDenied, "sa/frontend"},
		{"another namespace", with(func(w *apipb.Workload) { w.Namespace = "data" }), codes.PermissionDenied, "data"},
		{"another's selector", with(func(w *apipb.Workload) { w.Labels = map[string]string{"app": "api"} }), codes.PermissionDenied, "label app"},
		{"another's name", with(func(w *apipb.Workload) { w.Name = "api-1" }), codes.AlreadyExists, "registered by"},
		{"no name", with(func(w *apipb.Workload) { w.Name = "" }), codes.InvalidArgument, "metadata.name"},
		{"odd name", with(func(w *apipb.Workload) { w.Name = "a/b\n" }), codes.InvalidArgument, "metadata.name"},
		{"no address", with(func(w *apipb.Workload) { w.Addresses = nil }), codes.InvalidArgument, "spec.addresses"},
		{"odd address", with(func(w *apipb.Workload) { w.Addresses = []string{"x"} }), codes.InvalidArgument, "address"},
		{"every address", with(func(w *apipb.Workload) { w.Addresses = []string{"0.0.0.0"} }), codes.InvalidArgument, "spec.addresses[0]"},
		{"port", with(func(w *apipb.Workload) { w.Ports[0].App = 65536 + 80 }), codes.InvalidArgument, "port"},
		{"capture", with(func(w *apipb.Workload) { w.Capture = "magic" }), codes.InvalidArgument, "spec.capture"},
		{"upstream", with(func(w *apipb.Workload) { w.Upstreams = []*apipb.Upstream{{Service: "api", Local: "9001", Port: 80}} }), codes.InvalidArgument, "upstream"},
		{"label", with(func(w *apipb.Workload) { w.Labels = map[string]string{"a b": "\x00"} }), codes.InvalidArgument, "metadata.labels"},
		{"readiness first", ready(true, false), codes.FailedPrecondition, "first message"},
		{"empty", &apipb.WorkloadState{}, codes.InvalidArgument, "says nothing"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, _ := p.stream("frontend")
			wantCode(t, send(s, tc.message), tc.code, tc.want)
		})
	}
	stranger, err := p.workloads.Register(t.Context())
	must(t, err)
	wantCode(t, send(stranger, registerAs(workload("api", "api-9"))), codes.Unauthenticated, "no certificate")
	if p.store.Snapshot().Workloads.Len() != 1 {
		t.Error("a refused workload is there")
	}
	_, err = p.objects.Delete(t.Context(), &apipb.DeleteRequest{Refs: []*apipb.Ref{{Kind: "Workload", Name: "api-1"}}})
	wantCode(t, err, codes.InvalidArgument, "ends with its sidecar")
}

// TestDrainingIsAnsweredLate: a workload that ends hears of it when no proxy calls it any
// more, and others are not kept waiting.
func TestDrainingIsAnsweredLate(t *testing.T) {
	asked, release := make(chan uint64), make(chan struct{})
	p := &plane{t: t, dir: t.TempDir(), grace: time.Hour, settled: func(ctx context.Context, revision uint64) error {
		asked <- revision
		<-release
		return nil
	}}
	p.start()
	s, _ := p.stream("api")
	must(t, send(s, registerAs(workload("api", "api-1"))))
	must(t, s.Send(ready(false, true)))
	replies := make(chan *apipb.RegisterReply, 1)
	go func() {
		reply, _ := s.Recv()
		replies <- reply
	}()
	revision := <-asked
	if p.workload("api-1").Ready {
		t.Error("waits for proxies before they are told")
	}
	other, _ := p.stream("db")
	must(t, send(other, registerAs(workload("db", "db-1"))))
	select {
	case reply := <-replies:
		t.Errorf("answered while proxies call it still: %v", reply)
	default:
	}
	close(release)
	if reply := <-replies; reply.GetRevision() != revision {
		t.Errorf("asked for revision %d, answered %v", revision, reply)
	}
}
