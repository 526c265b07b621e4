package channel

import (
	"context"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
)

// A stream of configuration may be silent for hours, and a peer that hangs says nothing:
// only pings tell the two apart.
const (
	pingAfter    = 10 * time.Second // of silence; grpc-go takes no less for a client
	pingPatience = 5 * time.Second  // a machine that is busy answers late
)

// A peer whose machine loses power is missed sooner: kernels answer each other's probes
// however busy their machines are.
var probes = net.KeepAliveConfig{Enable: true, Idle: 4 * time.Second, Interval: time.Second, Count: 2}

// ClientAlive has a TCP connection end when the server's machine is silent for about six
// seconds, or the server itself for a quarter of a minute. 10,000 agents that hear nothing
// send 2,500 probes, which wake up no program, and 1,000 pings a second in all.
func ClientAlive() []grpc.DialOption {
	dialer := &net.Dialer{KeepAliveConfig: probes}
	return []grpc.DialOption{
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingAfter, Timeout: pingPatience}),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return dialer.DialContext(ctx, "tcp", address)
		}),
	}
}

// ServerAlive takes the pings of ClientAlive: without it a server ends connections that
// ping more often than every five minutes (GOAWAY, "too_many_pings"). A client that is
// silent for twice that time is asked itself. maxAge is when a connection is told to go,
// zero for never; streams that are open go on.
func ServerAlive(maxAge time.Duration) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: pingAfter / 2}),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: maxAge, Time: 2 * pingAfter, Timeout: pingPatience}),
	}
}
