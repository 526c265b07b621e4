package xdstest

import (
	"context"
	"fmt"
	"maps"
	"sync"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/anypb"
)

// Held is one resource that a client has.
type Held struct {
	Version string
	Message *anypb.Any
}

// Client is a simulated proxy: it takes what it is sent, and ACKs it.
type Client struct {
	// Judge, if set, is asked about each response; an error is sent as a NACK, and the
	// response is not taken. Set it before Run.
	Judge func(*discoveryv3.DeltaDiscoveryResponse) error
	// Observe, if set, is called after each response was taken and answered.
	Observe func(*discoveryv3.DeltaDiscoveryResponse)

	stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
	node   *corev3.Node

	mu      sync.Mutex // guards what follows, and sending
	held    map[string]map[string]Held
	started map[string]bool
	nodeOut bool
	seen    int // responses
	changed chan struct{}
}

// Open begins a stream. The context ends it.
func Open(ctx context.Context, conn grpc.ClientConnInterface, node string) (*Client, error) {
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		return nil, fmt.Errorf("open stream: %w", err)
	}
	return &Client{
		stream: stream, node: &corev3.Node{Id: node, Cluster: "test"},
		held: make(map[string]map[string]Held), started: make(map[string]bool), changed: make(chan struct{}),
	}, nil
}

// Resume makes the client believe it holds resources from an earlier stream.
func (c *Client) Resume(from *Client) {
	for typ, held := range from.held {
		c.held[typ] = maps.Clone(held)
	}
}

// Subscribe asks for names of a type; without names in a type's first request, for all.
func (c *Client) Subscribe(typ string, names ...string) error {
	return c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: typ, ResourceNamesSubscribe: names})
}

// Unsubscribe gives names back.
func (c *Client) Unsubscribe(typ string, names ...string) error {
	return c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: typ, ResourceNamesUnsubscribe: names})
}

func (c *Client) send(req *discoveryv3.DeltaDiscoveryRequest) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.nodeOut {
		req.Node, c.nodeOut = c.node, true
	}
	if !c.started[req.TypeUrl] {
		c.started[req.TypeUrl] = true
		for name, h := range c.held[req.TypeUrl] {
			if req.InitialResourceVersions == nil {
				req.InitialResourceVersions = make(map[string]string)
			}
			req.InitialResourceVersions[name] = h.Version
		}
	}
	return c.stream.Send(req)
}

// Run takes and answers responses until the stream ends.
func (c *Client) Run() error {
	for {
		r, err := c.stream.Recv()
		if err != nil {
			return err
		}
		answer := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.GetTypeUrl(), ResponseNonce: r.GetNonce()}
		if c.Judge != nil {
			if err := c.Judge(r); err != nil {
				answer.ErrorDetail = &rpcstatus.Status{Code: int32(codes.InvalidArgument), Message: err.Error()}
			}
		}
		c.take(r, answer.GetErrorDetail() == nil)
		if err := c.send(answer); err != nil {
			return err
		}
		if c.Observe != nil {
			c.Observe(r)
		}
	}
}

func (c *Client) take(r *discoveryv3.DeltaDiscoveryResponse, good bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen++
	if good {
		held := c.held[r.GetTypeUrl()]
		if held == nil {
			held = make(map[string]Held)
			c.held[r.GetTypeUrl()] = held
		}
		for _, res := range r.GetResources() {
			held[res.GetName()] = Held{res.GetVersion(), res.GetResource()}
		}
		for _, name := range r.GetRemovedResources() {
			delete(held, name)
		}
	}
	close(c.changed)
	c.changed = make(chan struct{})
}

// Held returns what the client has of a type.
func (c *Client) Held(typ string) map[string]Held {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.held[typ])
}

// Seen is the number of responses so far.
func (c *Client) Seen() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen
}

// Wait returns when what the client has of a type fulfils the condition.
func (c *Client) Wait(ctx context.Context, typ string, ok func(map[string]Held) bool) error {
	for {
		c.mu.Lock()
		changed, held := c.changed, maps.Clone(c.held[typ])
		c.mu.Unlock()
		if ok(held) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for %s, have %v: %w", typ, held, ctx.Err())
		}
	}
}
