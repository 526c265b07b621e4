package relay

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
)

// WatchConfig is Watch's.
type WatchConfig struct {
	Upstream *grpc.ClientConn // to the control plane
	Type     string           // type URL
	Node     *corev3.Node
	Dir      string // private folder for what was received last
	Log      *slog.Logger
}

// Watch keeps all resources of a type and calls changed with them, by name, after every
// change, and at once with what an earlier run has left. It returns when the context is
// done; until then it reconnects, with the versions that it holds.
func Watch(ctx context.Context, c WatchConfig, changed func(map[string]*anypb.Any)) error {
	g, err := openGood(c.Dir, c.Log)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	saved := make(chan struct{})
	go func() { defer close(saved); g.run(ctx) }()
	defer func() { cancel(); <-saved }()
	if held := g.messages(c.Type); len(held) > 0 {
		changed(held)
	}
	const first = 100 * time.Millisecond
	told := false // that the control plane does not know us
	for wait := first; ; wait = min(2*wait, 5*time.Second) {
		began := time.Now()
		err := watchOnce(ctx, c, g, changed)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if time.Since(began) > 10*time.Second {
			wait = first
		}
		unknown := status.Code(err) == codes.FailedPrecondition
		if unknown {
			wait = min(wait, unknownRetry)
		}
		if !unknown || !told {
			c.Log.Info("watch interrupted, trying again", "type", c.Type, "error", err, "after", wait)
		}
		told = unknown
		select {
		case <-time.After(wait/2 + rand.N(wait/2)):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// watchOnce watches on one stream until it ends.
func watchOnce(ctx context.Context, c WatchConfig, g *good, changed func(map[string]*anypb.Any)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(c.Upstream).DeltaAggregatedResources(ctx, grpc.WaitForReady(true))
	if err != nil {
		return err
	}
	err = stream.Send(&discoveryv3.DeltaDiscoveryRequest{
		Node: c.Node, TypeUrl: c.Type, ResourceNamesSubscribe: []string{"*"}, InitialResourceVersions: g.versions(c.Type),
	})
	for err == nil {
		var resp *discoveryv3.DeltaDiscoveryResponse
		if resp, err = stream.Recv(); err != nil {
			break
		}
		g.apply(resp)
		changed(g.messages(c.Type))
		err = stream.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: c.Type, ResponseNonce: resp.Nonce})
	}
	return err
}
