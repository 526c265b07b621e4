package admin

import (
	"context"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
	"github.com/heddle-mesh/heddle/discovery/api/apipb"
)

// Proxies lists the connected proxies by name. One is synced when it has answered
// everything up to the cache's revision and refuses nothing.
func (s *Server) Proxies(context.Context, *apipb.ProxiesRequest) (*apipb.ProxiesReply, error) {
	revision := s.pipeline.Cache().Revision() // before looking: a proxy can only be further
	reply := &apipb.ProxiesReply{}
	for _, c := range s.sidecars() {
		reply.Proxies = append(reply.Proxies, s.proxy(c, revision))
	}
	return reply, nil
}

func (s *Server) proxy(c sidecar, revision uint64) *apipb.Proxy {
	envoy := c.streams[0]
	out := &apipb.Proxy{
		Id: c.id, Workload: refPB(mesh.Ref{Kind: mesh.KindWorkload, Name: c.workload}),
		ConnectedSince: timestamppb.New(envoy.Connected),
		AckedRevision:  c.settled(),
		Resources:      map[string]uint32{},
	}
	for _, p := range c.streams {
		for _, t := range p.Types {
			out.Resources[t.Type] += uint32(t.Held)
		}
		if !p.LastAck.IsZero() && (out.LastAck == nil || p.LastAck.After(out.LastAck.AsTime())) {
			out.LastAck = timestamppb.New(p.LastAck)
		}
	}
	for _, r := range s.refusals(c) {
		out.Nacks = append(out.Nacks, r.pb())
	}
	out.Synced = out.AckedRevision >= revision && len(out.Nacks) == 0
	return out
}
