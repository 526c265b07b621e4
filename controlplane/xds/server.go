package xds

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// DefaultPatience is Config.Patience when that is zero. Envoy subscribes within
// milliseconds of taking a cluster; seconds only pass when something is wrong.
const DefaultPatience = 3 * time.Second

// Config is what a server needs.
type Config struct {
	Cache *Cache
	// Connect decides whether the client of a stream is served, and as which proxy. It is
	// called once per stream with the first request's node, which is not to be believed:
	// the context holds the authenticated peer. Its error ends the stream; an error
	// without a gRPC status becomes PermissionDenied.
	Connect func(ctx context.Context, node *corev3.Node) (Proxy, error)
	Log     *slog.Logger // nil: none
	// Settled, if set, is called whenever a proxy has answered a response, with the
	// revision up to which it is done. It must not block.
	Settled func(proxy string, revision uint64)
	// Asked, if set, is told of groups that a proxy on demand has come to use. It must not
	// block.
	Asked    func(proxy Proxy, groups []string)
	Patience time.Duration // see Pace; 0 means DefaultPatience
	Linger   time.Duration // see Pace
}

// Server serves a cache over delta ADS. The gRPC server it is registered with must be
// made with grpc.ForceServerCodecV2(Codec()).
type Server struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	config  Config
	changed broadcast
	stats   Stats

	mu       sync.Mutex // guards sessions
	sessions map[*session]struct{}
}

// Stats counts what a server has done since it was made.
type Stats struct {
	Connects, Responses, Resources, Removals, Bytes, Acks, Nacks atomic.Int64
}

// NewServer returns a server of the cache.
func NewServer(c Config) *Server {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Patience == 0 {
		c.Patience = DefaultPatience
	}
	return &Server{config: c, sessions: make(map[*session]struct{})}
}

// Stats returns the live counters.
func (s *Server) Stats() *Stats { return &s.stats }

// Changed returns a channel that is closed at the next connect, disconnect, request or
// answer of a proxy. Ask before looking at Status or Interested.
func (s *Server) Changed() <-chan struct{} { return s.changed.wait() }

// Transport is the part of a delta ADS stream that a session uses.
type Transport interface {
	Context() context.Context
	Recv() (*discoveryv3.DeltaDiscoveryRequest, error)
	SendMsg(any) error
}

// DeltaAggregatedResources implements the gRPC service.
func (s *Server) DeltaAggregatedResources(t discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	ctx := t.Context()
	requests := make(chan *discoveryv3.DeltaDiscoveryRequest)
	ended := make(chan error, 1)
	// Recv returns when this handler has: gRPC then cancels the stream.
	go func() {
		for {
			req, err := t.Recv()
			if err != nil {
				ended <- err
				return
			}
			select {
			case requests <- req:
			case <-ctx.Done():
				return
			}
		}
	}()
	err := s.Serve(ctx, requests, ended, func(r *Response) error { return t.SendMsg(r) })
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// Serve serves one client whose requests come from a channel, until the context is
// done, the client goes (an error from ended), or an error. It is what
// DeltaAggregatedResources does, for those who own the gRPC stream themselves.
func (s *Server) Serve(ctx context.Context, requests <-chan *discoveryv3.DeltaDiscoveryRequest, ended <-chan error, send func(*Response) error) error {
	var first *discoveryv3.DeltaDiscoveryRequest
	select {
	case first = <-requests:
	case err := <-ended:
		return err
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	}
	proxy, err := s.config.Connect(ctx, first.GetNode())
	if err != nil {
		if _, ok := status.FromError(err); ok {
			return err
		}
		return status.Error(codes.PermissionDenied, fmt.Errorf("connect node %q: %w", first.GetNode().GetId(), err).Error())
	}
	se := s.begin(proxy, first.GetNode())
	defer s.end(se)
	return se.run(ctx, first, requests, ended, send)
}

// Join makes all proxies on demand of a Sharing interested in groups.
func (s *Server) Join(sharing string, groups ...string) {
	s.regroup(sharing, func(st *Stream) bool { return st.Join(groups...) })
}

// Leave is the opposite of Join.
func (s *Server) Leave(sharing string, groups ...string) {
	s.regroup(sharing, func(st *Stream) bool { return st.Leave(groups...) })
}

// regroup changes the streams of a Sharing, and wakes the owners of those to which that was
// news.
func (s *Server) regroup(sharing string, change func(*Stream) bool) {
	for _, se := range s.snapshot() {
		if se.stream.proxy.Sharing != sharing { // it never changes
			continue
		}
		se.mu.Lock()
		news := change(se.stream)
		se.mu.Unlock()
		if !news {
			continue
		}
		select {
		case se.poked <- struct{}{}:
		default:
		}
	}
}

func (s *Server) begin(proxy Proxy, node *corev3.Node) *session {
	se := &session{server: s, since: time.Now(), node: node.GetId(), poked: make(chan struct{}, 1), stream: NewStream(s.config.Cache, proxy,
		Pace{Patience: s.config.Patience, Linger: s.config.Linger})}
	s.mu.Lock()
	s.sessions[se] = struct{}{}
	s.mu.Unlock()
	s.stats.Connects.Add(1)
	s.changed.fire()
	s.config.Log.Info("proxy connected", "id", proxy.ID, "node", se.node)
	return se
}

func (s *Server) end(se *session) {
	s.mu.Lock()
	delete(s.sessions, se)
	s.mu.Unlock()
	s.changed.fire()
	s.config.Log.Info("proxy disconnected", "id", se.stream.proxy.ID, "node", se.node)
}
