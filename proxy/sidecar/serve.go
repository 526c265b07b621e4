package sidecar

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secretv3 "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	workloadpb "github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/heddle-mesh/heddle/controlplane/xds"
	"github.com/heddle-mesh/heddle/identity/channel"
	"github.com/heddle-mesh/heddle/identity/sds"
	"github.com/heddle-mesh/heddle/identity/workloadapi"
	"github.com/heddle-mesh/heddle/proxy/capture"
	"github.com/heddle-mesh/heddle/telemetry/stats"
	"github.com/heddle-mesh/heddle/telemetry/tracing"
)

// serveSockets opens everything that Envoy, the application and people connect to, and
// serves it in the group until the context is done.
func (s *Sidecar) serveSockets(ctx context.Context, group *errgroup.Group) error {
	forwarder, err := tracing.NewForwarder(tracing.ForwarderConfig{Endpoint: s.config.Collector, Insecure: true, Log: s.log})
	if err != nil {
		return err
	}
	group.Go(func() error { return forwarder.Run(ctx) })
	group.Go(func() error { return s.relay.Run(ctx) })

	toEnvoy := grpc.NewServer(grpc.ForceServerCodecV2(xds.Codec()))
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(toEnvoy, s.relay)
	secretv3.RegisterSecretDiscoveryServiceServer(toEnvoy, sds.New(s.identity, s.trustDomain(), s.log))
	forwarder.Register(toEnvoy)
	if err := s.serveUnix(ctx, group, toEnvoy, envoySocket, s.proxyUID()); err != nil {
		return err
	}
	toApp := grpc.NewServer()
	workloadpb.RegisterSpiffeWorkloadAPIServer(toApp, workloadapi.New(s.identity, s.trustDomain()))
	if err := s.serveUnix(ctx, group, toApp, workloadSocket, s.appUID()); err != nil {
		return err
	}
	if s.config.Pod != nil {
		// Whoever has the volume is the application, whatever its user.
		if err := os.Chmod(s.config.path(workloadSocket), 0o666); err != nil {
			return err
		}
		if err := s.servePod(ctx, group); err != nil {
			return err
		}
	}
	registry := stats.NewRegistry()
	registry.MustRegister(forwarder, collector{s.status})
	metrics := stats.Handler(stats.Config{Own: registry, Envoy: s.admin.Prometheus, Log: s.log})
	if err := s.serveTelemetry(ctx, group, forwarder, metrics); err != nil {
		return err
	}
	if err := s.serveStatus(ctx, group, metrics); err != nil {
		return err
	}
	return s.publish(ctx, group)
}

// serveUnix serves gRPC on a socket in the run directory that only uid may open.
func (s *Sidecar) serveUnix(ctx context.Context, group *errgroup.Group, server *grpc.Server, name string, uid int) error {
	l, err := listenUnix(s.config.path(name), uid)
	if err != nil {
		return err
	}
	group.Go(func() error { return channel.Serve(ctx, server, l) })
	return nil
}

// listenUnix opens a Unix socket that belongs to uid, -1 for ourselves.
func listenUnix(path string, uid int) (net.Listener, error) {
	l, err := channel.ListenUnix(path)
	if err != nil {
		return nil, err
	}
	if err := os.Chown(path, uid, -1); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// serveTelemetry opens, for a workload in a namespace that we made, the OTLP port of the
// application and the metrics port there; for others the metrics port alone.
func (s *Sidecar) serveTelemetry(ctx context.Context, group *errgroup.Group, forwarder *tracing.Forwarder, metrics http.Handler) error {
	if s.network != nil {
		l, err := s.ns.Listen(ctx, "tcp", "127.0.0.1:4317")
		if err != nil {
			return err
		}
		server := grpc.NewServer()
		forwarder.Register(server)
		group.Go(func() error { return channel.Serve(ctx, server, l) })
	}
	if s.config.Metrics == "" {
		return nil
	}
	l, err := s.ns.Listen(ctx, "tcp", s.config.Metrics)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metrics)
	s.serveHTTP(ctx, group, mux, l)
	return nil
}

func (s *Sidecar) serveHTTP(ctx context.Context, group *errgroup.Group, handler http.Handler, l net.Listener) {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second, MaxHeaderBytes: 16 << 10}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	group.Go(func() error {
		defer stop()
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve %s: %w", l.Addr(), err)
		}
		return nil
	})
}

// publish forwards ports of the machine to the application.
func (s *Sidecar) publish(ctx context.Context, group *errgroup.Group) error {
	for _, p := range s.config.Publish {
		l, err := p.listen(ctx)
		if err != nil {
			return fmt.Errorf("publish port %d: %w", p.Port, err)
		}
		to := fmt.Sprintf("127.0.0.1:%d", p.Port)
		group.Go(func() error {
			return capture.Forward(ctx, l, func(ctx context.Context) (net.Conn, error) { return s.ns.Dial(ctx, "tcp", to) })
		})
	}
	return nil
}

func (p Publish) listen(ctx context.Context) (net.Listener, error) {
	if p.File == 0 {
		var lc net.ListenConfig
		return lc.Listen(ctx, "tcp", p.Address)
	}
	file := os.NewFile(uintptr(p.File), "published")
	if file == nil {
		return nil, fmt.Errorf("descriptor %d is not open", p.File)
	}
	defer file.Close()
	return net.FileListener(file)
}
