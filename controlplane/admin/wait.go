package admin

import (
	"context"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/controlplane/xds"
	"github.com/heddle-mesh/heddle/discovery/api/apipb"
)

// Wait tells how many of the connected proxies hold a revision, at once and at every
// change, until each of them has taken or refused it. A proxy refuses a revision when it
// refuses a resource whose newest content came with it. Revision 0 is the newest one; a
// revision that is yet to come, as after a restart of the control plane, is
// FAILED_PRECONDITION. The caller's context bounds the wait.
func (s *Server) Wait(r *apipb.WaitRequest, stream grpc.ServerStreamingServer[apipb.WaitReply]) error {
	if err := s.awaitObjects(stream.Context(), r.GetObjects()); err != nil {
		return err
	}
	revision, newest := r.GetRevision(), s.pipeline.Cache().Revision()
	if revision == 0 {
		revision = newest
	}
	if revision > newest {
		return status.Errorf(codes.FailedPrecondition,
			"revision %d does not exist, the newest is %d; the control plane was restarted: apply again", revision, newest)
	}
	var last *apipb.WaitReply
	for {
		changed := s.xds.Changed() // before looking
		reply := s.progress(revision)
		if !proto.Equal(last, reply) {
			if err := stream.Send(reply); err != nil {
				return err
			}
			last = reply
		}
		if reply.GetDone() {
			return nil
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return status.FromContextError(stream.Context().Err()).Err()
		}
	}
}

// objectPace is how often it is looked whether objects have come.
const objectPace = 20 * time.Millisecond

// awaitObjects waits until the mesh has objects in these generations or later ones.
func (s *Server) awaitObjects(ctx context.Context, wanted []*apipb.Origin) error {
	for {
		snapshot := s.pipeline.Snapshot()
		missing := slices.IndexFunc(wanted, func(o *apipb.Origin) bool {
			ref := o.GetRef()
			have := snapshot.Get(mesh.Ref{Kind: mesh.Kind(ref.GetKind()), Name: mesh.Name{Namespace: ref.GetNamespace(), Name: ref.GetName()}})
			if o.GetGeneration() == 0 || have == nil {
				return have != nil || o.GetGeneration() != 0
			}
			return have.Header().Generation < o.GetGeneration()
		})
		if missing < 0 {
			return nil
		}
		select {
		case <-time.After(objectPace):
		case <-ctx.Done():
			ref := wanted[missing].GetRef()
			return status.Errorf(codes.DeadlineExceeded, "the control plane has not seen generation %d of %s %s/%s",
				wanted[missing].GetGeneration(), ref.GetKind(), ref.GetNamespace(), ref.GetName())
		}
	}
}

// Settled waits until every connected proxy has taken or refused a revision. Its error is
// the context's.
func (s *Server) Settled(ctx context.Context, revision uint64) error {
	for {
		changed := s.xds.Changed() // before looking
		if !slices.ContainsFunc(s.sidecars(), func(c sidecar) bool { return c.settled() < revision }) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (s *Server) progress(revision uint64) *apipb.WaitReply {
	reply := &apipb.WaitReply{Revision: revision, Done: true}
	for _, c := range s.sidecars() {
		reply.Total++
		if c.settled() < revision {
			reply.Done = false
			continue
		}
		live := true
		for _, r := range s.refusals(c) {
			if s.pipeline.ChangedAt(r.Key) == revision {
				reply.Refused = append(reply.Refused, &apipb.Refusal{Proxy: c.id, Nack: r.pb()})
				live = false
			}
		}
		if live {
			reply.Live++
		}
	}
	return reply
}

// reach is how far the resources of one object have come.
type reach struct {
	total, live int
	refused     []refusal
	behind      []string // ids
}

// reach looks at the resources of an object on all proxies that want any of them.
func (s *Server) reach(keys []xds.Key, revision uint64, accused func(refusal) bool) reach {
	var out reach
	if len(keys) == 0 {
		return out
	}
	for _, c := range s.sidecars() {
		if !c.concerns(keys) {
			continue
		}
		out.total++
		before := len(out.refused)
		for _, r := range s.refusals(c) {
			if accused(r) {
				out.refused = append(out.refused, r)
			}
		}
		switch {
		case len(out.refused) > before:
		case c.settled() < revision:
			out.behind = append(out.behind, c.id)
		default:
			out.live++
		}
	}
	return out
}
