package sidecar

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/heddle-mesh/heddle/discovery/api/apipb"
)

// registration keeps the control plane's idea of the workload equal to ours.
type registration struct {
	client apipb.WorkloadsClient
	log    *slog.Logger

	mu      sync.Mutex // guards what follows
	state   *apipb.Workload
	drained bool // the end was announced: nothing makes it ready again
	seq     int  // of state and drained
	acked   int  // the newest the control plane has
	refused string
	changed chan struct{} // closed at the next change of any of them
}

func newRegistration(conn grpc.ClientConnInterface, state *apipb.Workload, log *slog.Logger) *registration {
	return &registration{client: apipb.NewWorkloadsClient(conn), log: log, state: state, seq: 1, changed: make(chan struct{})}
}

// update changes the state by f and sends it as soon as possible.
func (r *registration) update(f func(*apipb.Workload)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := proto.Clone(r.state).(*apipb.Workload)
	f(next)
	next.Ready = next.Ready && !r.drained
	if proto.Equal(next, r.state) {
		return
	}
	r.state, r.seq = next, r.seq+1
	r.notify()
}

// drain says that this is the end; the answer comes when no proxy sends requests here.
func (r *registration) drain() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.state = proto.Clone(r.state).(*apipb.Workload)
	r.state.Ready, r.drained, r.seq = false, true, r.seq+1
	r.notify()
}

// message is what to send next: a stream begins with the whole state.
func (r *registration) message(first bool) (m *apipb.WorkloadState, seq int, changed <-chan struct{}, more bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.drained && !first {
		m = &apipb.WorkloadState{State: &apipb.WorkloadState_Readiness{Readiness: &apipb.Readiness{Draining: true}}}
	} else {
		m = &apipb.WorkloadState{State: &apipb.WorkloadState_Workload{Workload: r.state}}
	}
	return m, r.seq, r.changed, r.drained && first
}

func (r *registration) notify() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// current gives the state, its number, what was answered, and a channel for the next change.
func (r *registration) current() (state *apipb.Workload, seq, acked int, refused string, changed <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state, r.seq, r.acked, r.refused, r.changed
}

// await waits until the control plane has the present state, or has refused it.
func (r *registration) await(ctx context.Context) error {
	for {
		_, seq, acked, refused, changed := r.current()
		if acked >= seq {
			if refused != "" {
				return errors.New(refused)
			}
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// awaitFor is await for so long at most.
func (r *registration) awaitFor(ctx context.Context, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return r.await(ctx)
}

// run registers until the context is done, again and again while the control plane is away.
func (r *registration) run(ctx context.Context) {
	for wait := 100 * time.Millisecond; ctx.Err() == nil; {
		began := time.Now()
		err := r.stream(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > 10*time.Second {
			wait = 100 * time.Millisecond
		}
		if code := status.Code(err); code == codes.InvalidArgument || code == codes.PermissionDenied {
			_, seq, _, _, _ := r.current()
			r.answered(seq, status.Convert(err).Message())
		}
		r.log.Warn("registration interrupted, trying again", "error", err, "after", wait)
		select {
		case <-time.After(wait/2 + rand.N(wait/2)):
		case <-ctx.Done():
		}
		wait = min(2*wait, 5*time.Second)
	}
}

// stream registers on one stream, one message at a time: the next goes out when the one
// before was answered, and then it is the newest.
func (r *registration) stream(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := r.client.Register(ctx)
	if err != nil {
		return err
	}
	replies, ended := make(chan *apipb.RegisterReply), make(chan error, 1)
	go func() {
		for {
			reply, err := stream.Recv()
			if err != nil {
				ended <- err
				return
			}
			select {
			case replies <- reply:
			case <-ctx.Done():
				return
			}
		}
	}()
	for sent, first := 0, true; ; first = false {
		message, seq, changed, more := r.message(first)
		if seq == sent {
			select {
			case <-changed:
				continue
			case err := <-ended:
				return err
			}
		}
		if err := stream.Send(message); err != nil {
			return <-ended
		}
		select {
		case <-replies:
			if more { // the end, which is to be said yet
				continue
			}
			sent = seq
			r.answered(seq, "")
		case err := <-ended:
			return err
		}
	}
}

func (r *registration) answered(seq int, refused string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.acked, r.refused = seq, refused
	r.notify()
}

// leave tells the control plane that the workload is gone for good, if it can be told.
func (r *registration) leave(ctx context.Context) error {
	stream, err := r.client.Register(ctx)
	if err != nil {
		return err
	}
	state, _, _, _, _ := r.current()
	for _, m := range []*apipb.WorkloadState{
		{State: &apipb.WorkloadState_Workload{Workload: state}},
		{State: &apipb.WorkloadState_Bye{Bye: &apipb.Bye{}}},
	} {
		if err := stream.Send(m); err != nil {
			return err
		}
		if _, err := stream.Recv(); err != nil {
			return err
		}
	}
	return stream.CloseSend()
}
