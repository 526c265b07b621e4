package attest

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// serve starts a health service on a Unix socket, and returns a client of it.
func serve(t *testing.T, options ...grpc.ServerOption) healthpb.HealthClient {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(append(options, grpc.Creds(UnixCredentials()))...)
	healthpb.RegisterHealthServer(s, health.NewServer())
	done := make(chan error, 1)
	go func() { done <- s.Serve(listener) }()
	t.Cleanup(func() { s.Stop(); <-done })
	conn, err := grpc.NewClient("unix:"+path, grpc.WithTransportCredentials(UnixCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return healthpb.NewHealthClient(conn)
}

func TestPeerCredentialsReachTheCall(t *testing.T) {
	var seen *PeerCred
	client := serve(t, grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		seen = FromContext(ctx).Peer
		return handler(ctx, req)
	}))
	if _, err := client.Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
		t.Fatal(err)
	}
	want := PeerCred{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), PID: int32(os.Getpid())}
	if seen == nil || *seen != want {
		t.Errorf("peer %+v, want %+v", seen, want)
	}
}

func TestRequireUID(t *testing.T) {
	uid := uint32(os.Geteuid())
	for name, tc := range map[string]struct {
		uids []uint32
		want codes.Code
	}{
		"its user": {[]uint32{uid + 1, uid}, codes.OK}, "another user": {[]uint32{uid + 1}, codes.PermissionDenied}, "nobody": {nil, codes.PermissionDenied},
	} {
		client := serve(t, RequireUID(tc.uids...)...)
		if _, err := client.Check(t.Context(), &healthpb.HealthCheckRequest{}); status.Code(err) != tc.want {
			t.Errorf("%s: call: %v, want %v", name, err, tc.want)
		}
		stream, err := client.Watch(t.Context(), &healthpb.HealthCheckRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); status.Code(err) != tc.want {
			t.Errorf("%s: stream: %v, want %v", name, err, tc.want)
		}
	}
}

func TestUnixCredentialsRefuseTCP(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, _, err := UnixCredentials().ServerHandshake(conn); err == nil {
		t.Error("the server took TCP")
	}
	if _, _, err := UnixCredentials().ClientHandshake(t.Context(), "x", conn); err == nil || !strings.Contains(err.Error(), "use TLS") {
		t.Errorf("the client took TCP: %v", err)
	}
}

func TestFirstStopsAtARefusal(t *testing.T) {
	api := mustID(t, "spiffe://shop.example/ns/default/sa/api")
	pass := func(context.Context, Evidence) (Attested, error) { return Attested{}, ErrNotMine }
	accept := func(context.Context, Evidence) (Attested, error) { return Attested{ID: api}, nil }
	refuse := func(context.Context, Evidence) (Attested, error) { return Attested{}, ErrDenied }
	for name, tc := range map[string]struct {
		list []Attestor
		want error
	}{
		"passed on": {[]Attestor{pass, accept, refuse}, nil}, "refused": {[]Attestor{pass, refuse, accept}, ErrDenied},
		"nobody's": {[]Attestor{pass}, ErrUnauthenticated}, "empty": {nil, ErrUnauthenticated},
	} {
		who, err := First(tc.list...)(t.Context(), Evidence{})
		if !errors.Is(err, tc.want) || (err == nil) != (who.ID == api) {
			t.Errorf("%s: %v, %v; want %v", name, who, err, tc.want)
		}
	}
}
