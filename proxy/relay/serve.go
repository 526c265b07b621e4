package relay

import (
	"context"
	"errors"
	"io"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/heddle-mesh/heddle/controlplane/xds"
)

// openTimeout is how long Envoy waits for a control plane that neither answers nor
// refuses, before it is served from memory.
const openTimeout = 2 * time.Second

// downstream is Envoy's end: its requests, and the error that ended them.
type downstream struct {
	stream   discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer
	requests chan *discoveryv3.DeltaDiscoveryRequest
	ended    chan error
}

// DeltaAggregatedResources serves one stream of Envoy, by the control plane if it is
// there, else from memory. When that changes the stream ends, and Envoy comes back with
// the versions it holds and gets only what is different.
func (r *Relay) DeltaAggregatedResources(s discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	d := &downstream{stream: s, requests: make(chan *discoveryv3.DeltaDiscoveryRequest), ended: make(chan error, 1)}
	go r.receive(d) // until this handler returns and gRPC cancels the stream

	ctx, cancel := context.WithCancel(s.Context())
	defer cancel()
	var err error
	if up := r.dial(ctx); up != nil {
		err = r.forward(ctx, d, up)
	} else {
		err = r.serveLocally(ctx, d)
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func (r *Relay) receive(d *downstream) {
	for {
		req, err := d.stream.Recv()
		if err != nil {
			d.ended <- err
			return
		}
		select {
		case d.requests <- req:
		case <-d.stream.Context().Done():
			return
		}
		if req.GetResponseNonce() != "" && req.GetErrorDetail() == nil && r.config.Acked != nil {
			r.config.Acked(req.GetTypeUrl())
		}
	}
}

type upstream = grpc.BidiStreamingClient[discoveryv3.DeltaDiscoveryRequest, discoveryv3.DeltaDiscoveryResponse]

func (r *Relay) open(ctx context.Context, opts ...grpc.CallOption) (upstream, error) {
	return discoveryv3.NewAggregatedDiscoveryServiceClient(r.config.Upstream).DeltaAggregatedResources(ctx, opts...)
}

// dial opens a stream to the control plane, or returns nil if there is none now.
func (r *Relay) dial(ctx context.Context) upstream {
	r.mu.Lock()
	wait := time.Until(r.retryAt)
	r.mu.Unlock()
	if wait > 0 {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	timer := time.AfterFunc(openTimeout, cancel)
	up, err := r.open(ctx)
	if !timer.Stop() || err != nil {
		cancel()
		r.config.Log.Info("control plane is away", "error", err)
		return nil
	}
	return up
}

// serveLocally serves Envoy from memory until the control plane is back.
func (r *Relay) serveLocally(ctx context.Context, d *downstream) error {
	cache := r.localCache()
	local := xds.NewServer(xds.Config{Cache: cache, Log: r.config.Log, Connect: func(_ context.Context, n *corev3.Node) (xds.Proxy, error) {
		return xds.Proxy{ID: n.GetId()}, nil
	}})
	r.config.Log.Info("serving the last good configuration", "resources", cache.Len(), "of", r.Synced())
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		if r.await(ctx) {
			r.config.Log.Info("control plane is back")
			cancel()
		}
	}()
	err := local.Serve(ctx, d.requests, d.ended, func(resp *xds.Response) error { return d.stream.SendMsg(resp) })
	cancel()
	<-watching
	if status.Code(err) == codes.Canceled && d.stream.Context().Err() == nil {
		return status.Error(codes.Unavailable, "the control plane is back, connect again")
	}
	return err
}

// await returns true when the control plane takes connections, false when ctx is done.
func (r *Relay) await(ctx context.Context) bool {
	r.mu.Lock()
	wait := time.Until(r.retryAt)
	r.mu.Unlock()
	pause(ctx, wait)
	var retry backoff
	for ctx.Err() == nil {
		try, cancel := context.WithCancel(ctx)
		_, err := r.open(try, grpc.WaitForReady(true))
		cancel()
		if err == nil {
			return true
		}
		pause(ctx, retry.next())
	}
	return false
}

// pause waits, but not beyond the context.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
