package main

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/heddle-mesh/heddle/discovery/api/apipb"
)

// replicas are the replicas of a control plane as one: each serves some of the proxies,
// all have the same configuration.
type replicas struct{ clients []apipb.MeshClient }

// Proxies gives those of all replicas.
func (r *replicas) Proxies(ctx context.Context, in *apipb.ProxiesRequest, opts ...grpc.CallOption) (*apipb.ProxiesReply, error) {
	all := new(apipb.ProxiesReply)
	for _, c := range r.clients {
		reply, err := c.Proxies(ctx, in, opts...)
		if err != nil {
			return nil, err
		}
		all.Proxies = append(all.Proxies, reply.GetProxies()...)
	}
	return all, nil
}

// Config asks the replicas in turn: the one that serves the workload knows what it holds.
func (r *replicas) Config(ctx context.Context, in *apipb.ConfigRequest, opts ...grpc.CallOption) (reply *apipb.ConfigReply, err error) {
	for _, c := range r.clients {
		if reply, err = c.Config(ctx, in, opts...); err == nil && len(reply.GetResources()) > 0 {
			return reply, nil
		}
	}
	return reply, err
}

// connected is the check of which each replica sees a part: a proxy that is connected to
// another looks to it as if it were away.
const connected = "workloads"

// Check gives the findings of all replicas, each once; of what is connected only those on
// which all agree.
func (r *replicas) Check(ctx context.Context, in *apipb.CheckRequest, opts ...grpc.CallOption) (*apipb.CheckReply, error) {
	var replies [][]*apipb.Finding
	for _, c := range r.clients {
		reply, err := c.Check(ctx, in, opts...)
		if err != nil {
			return nil, err
		}
		replies = append(replies, reply.GetFindings())
	}
	all, agreed := new(apipb.CheckReply), true
	for _, findings := range replies {
		for _, f := range findings {
			everywhere := !slices.ContainsFunc(replies, func(other []*apipb.Finding) bool { return !hasFinding(other, f) })
			if f.GetName() == connected && !everywhere {
				continue
			}
			agreed = agreed && f.GetName() != connected
			if !hasFinding(all.GetFindings(), f) {
				all.Findings = append(all.Findings, f)
			}
		}
	}
	if agreed {
		all.Findings = append(all.Findings, &apipb.Finding{Name: connected, Level: apipb.Finding_OK, Message: "every workload is connected to one of the replicas"})
	}
	return all, nil
}

func hasFinding(list []*apipb.Finding, f *apipb.Finding) bool {
	for _, have := range list {
		if proto.Equal(have, f) {
			return true
		}
	}
	return false
}

// Wait waits at all replicas and adds up what they say.
func (r *replicas) Wait(ctx context.Context, in *apipb.WaitRequest, opts ...grpc.CallOption) (grpc.ServerStreamingClient[apipb.WaitReply], error) {
	s := &sumStream{changed: make(chan struct{}, 1), latest: make([]*apipb.WaitReply, len(r.clients))}
	for i, c := range r.clients {
		stream, err := c.Wait(ctx, in, opts...)
		if err != nil {
			return nil, err
		}
		go s.follow(i, stream) // ends with the stream
	}
	return s, nil
}

// sumStream is the sum of several waits.
type sumStream struct {
	grpc.ClientStream // nil: nobody asks for headers
	changed           chan struct{}

	mu     sync.Mutex // guards what follows
	latest []*apipb.WaitReply
	ended  int
	err    error
	told   *apipb.WaitReply
}

func (s *sumStream) follow(i int, stream grpc.ServerStreamingClient[apipb.WaitReply]) {
	for {
		reply, err := stream.Recv()
		s.mu.Lock()
		if err == nil {
			s.latest[i] = reply
		} else {
			s.ended++
			if !errors.Is(err, io.EOF) && s.err == nil {
				s.err = err
			}
		}
		s.mu.Unlock()
		select {
		case s.changed <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
	}
}

// Recv gives the sum whenever it has changed, and io.EOF when all waits are done.
func (s *sumStream) Recv() (*apipb.WaitReply, error) {
	for {
		s.mu.Lock()
		sum, complete := s.sum()
		err, over := s.err, s.ended == len(s.latest)
		fresh := complete && !proto.Equal(sum, s.told)
		if fresh {
			s.told = sum
		}
		s.mu.Unlock()
		switch {
		case err != nil:
			return nil, err
		case fresh:
			return sum, nil
		case over && !complete:
			return nil, status.Error(codes.Unavailable, "a replica of the control plane has ended")
		case over:
			return nil, io.EOF
		}
		<-s.changed
	}
}

// sum adds up the latest replies; it is complete when every replica has given one.
func (s *sumStream) sum() (sum *apipb.WaitReply, complete bool) {
	sum = &apipb.WaitReply{Done: true}
	for _, reply := range s.latest {
		if reply == nil {
			return nil, false
		}
		sum.Total += reply.GetTotal()
		sum.Live += reply.GetLive()
		sum.Refused = append(sum.Refused, reply.GetRefused()...)
		sum.Done = sum.Done && reply.GetDone()
	}
	return sum, true
}
