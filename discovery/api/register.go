package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/discovery/api/apipb"
	"github.com/heddle-mesh/heddle/identity/spiffeid"
)

// appLabel is the label by which services select workloads, as a rule. It always is the
// attested service, so that nobody gets the traffic of another's selector.
const appLabel = "app"

// IdentityFunc gives who is on the other end of a call.
type IdentityFunc func(ctx context.Context) (spiffeid.ID, error)

// registration is one stream of Register.
type registration struct {
	registry *registry
	identity spiffeid.ID
	workload *mesh.Workload // as written last; nil before the first message
}

// Register keeps a workload registered while the stream lives.
func (s *Server) Register(stream grpc.BidiStreamingServer[apipb.WorkloadState, apipb.RegisterReply]) error {
	id, err := s.config.Identity(stream.Context())
	if err != nil {
		return status.Errorf(codes.Unauthenticated, "register a workload: %v", err)
	}
	r := &registration{registry: s.registry, identity: id}
	defer r.end()
	for {
		message, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		revision, err := r.handle(message)
		if err != nil {
			return err
		}
		if message.GetReadiness().GetDraining() && s.config.Settled != nil {
			if err := s.config.Settled(stream.Context(), revision); err != nil {
				return err
			}
		}
		reply := &apipb.RegisterReply{Revision: revision, Grace: durationpb.New(s.config.Grace)}
		if err := stream.Send(reply); err != nil {
			return err
		}
		if message.GetBye() != nil {
			return nil
		}
	}
}

func (r *registration) end() {
	if r.workload != nil {
		r.registry.leave(r, r.workload.Name)
	}
}

func (r *registration) handle(m *apipb.WorkloadState) (uint64, error) {
	switch state := m.GetState().(type) {
	case *apipb.WorkloadState_Workload:
		w, err := r.read(state.Workload)
		if err != nil {
			return 0, err
		}
		if r.workload != nil && r.workload.Name != w.Name {
			return 0, status.Errorf(codes.InvalidArgument, "the stream is that of %s and cannot become %s; open another", r.workload.Ref, w.Ref)
		}
		return r.write(w, r.workload == nil)
	case *apipb.WorkloadState_Readiness:
		if r.workload == nil {
			return 0, errNoWorkload
		}
		w := *r.workload
		w.Ready = state.Readiness.GetReady() && !state.Readiness.GetDraining()
		return r.write(&w, false)
	case *apipb.WorkloadState_Bye:
		if r.workload == nil {
			return 0, errNoWorkload
		}
		return r.registry.remove(r, r.workload.Name)
	}
	return 0, status.Error(codes.InvalidArgument, "the message says nothing; send workload, readiness or bye")
}

var errNoWorkload = status.Error(codes.FailedPrecondition, "the first message of a stream is a workload")

func (r *registration) write(w *mesh.Workload, take bool) (uint64, error) {
	checked, document, err := r.registry.check(w)
	if err != nil {
		return 0, err
	}
	revision, err := r.registry.put(r, checked, document, take)
	if err == nil {
		r.workload = checked
	}
	return revision, err
}

// read makes a workload of a message, as far as its identity allows.
func (r *registration) read(pb *apipb.Workload) (*mesh.Workload, error) {
	if pb.GetNamespace() != r.identity.Namespace() || pb.GetService() != r.identity.ServiceAccount() {
		return nil, status.Errorf(codes.PermissionDenied, "a workload of %q in namespace %q cannot be registered by %s; use a token of that service",
			pb.GetService(), pb.GetNamespace(), r.identity)
	}
	w := &mesh.Workload{
		Meta:     mesh.Meta{Ref: mesh.Ref{Kind: mesh.KindWorkload, Name: mesh.Name{Namespace: pb.GetNamespace(), Name: pb.GetName()}}},
		Identity: r.identity, Labels: map[string]string{appLabel: pb.GetService()},
		Zone: pb.GetZone(), Node: pb.GetNode(), Capture: mesh.Capture(pb.GetCapture()), Ready: pb.GetReady(),
	}
	for k, v := range pb.GetLabels() {
		if k == appLabel && v != pb.GetService() {
			return nil, status.Errorf(codes.PermissionDenied, "label app is %q and the service is %q; leave the label out", v, pb.GetService())
		}
		w.Labels[k] = v
	}
	for _, text := range pb.GetAddresses() {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return nil, status.Errorf(codes.InvalidArgument, "address of workload %s: %v", w.Ref, err)
		}
		w.Addresses = append(w.Addresses, a)
	}
	return w, readPorts(w, pb)
}

func readPorts(w *mesh.Workload, pb *apipb.Workload) error {
	for _, p := range pb.GetPorts() {
		if max(p.GetApp(), p.GetPeer(), p.GetLocal()) > 65535 {
			return status.Errorf(codes.InvalidArgument, "port of workload %s: %v is not a port; give 1 to 65535", w.Ref, p)
		}
		w.Ports = append(w.Ports, mesh.WorkloadPort{App: uint16(p.GetApp()), Peer: uint16(p.GetPeer()), Local: uint16(p.GetLocal())})
	}
	for _, u := range pb.GetUpstreams() {
		local, err := netip.ParseAddrPort(u.GetLocal())
		if err == nil && u.GetPort() > 65535 {
			err = fmt.Errorf("%d is not a port", u.GetPort())
		}
		if err != nil {
			return status.Errorf(codes.InvalidArgument, "upstream %s of workload %s: %v", u.GetService(), w.Ref, err)
		}
		namespace := u.GetNamespace()
		if namespace == "" {
			namespace = w.Namespace
		}
		w.Upstreams = append(w.Upstreams, mesh.Upstream{Local: local, Port: uint16(u.GetPort()),
			Service: mesh.Name{Namespace: namespace, Name: u.GetService()}})
	}
	return nil
}
