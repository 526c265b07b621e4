package attest

import (
	"context"
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// PeerCred is the process that connected to a Unix socket, as the kernel recorded it
// at connect (SO_PEERCRED, unix(7)). In a user namespace the numbers are those of the
// reader's namespace; 65534 stands for one that is not mapped there.
type PeerCred struct {
	UID, GID uint32
	PID      int32
}

// PeerAuth is the gRPC AuthInfo of a Unix connection.
type PeerAuth struct {
	credentials.CommonAuthInfo
	Cred PeerCred
}

// AuthType implements [credentials.AuthInfo].
func (PeerAuth) AuthType() string { return "unix-peercred" }

// UnixCredentials are gRPC transport credentials for Unix sockets: the server learns
// the peer's PeerCred, the client does nothing. Both refuse any other transport, so that
// a TCP listener can not be given them by mistake. Level is privacy and integrity, since
// nobody is between the two ends of a Unix socket.
func UnixCredentials() credentials.TransportCredentials { return unixCredentials{} }

type unixCredentials struct{}

func (unixCredentials) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	cred, err := peerCred(conn)
	if err != nil {
		return nil, nil, err
	}
	return conn, PeerAuth{common(), cred}, nil
}

func (unixCredentials) ClientHandshake(_ context.Context, _ string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	if conn.RemoteAddr().Network() != "unix" {
		return nil, nil, fmt.Errorf("%s is not a Unix socket; use TLS", conn.RemoteAddr())
	}
	return conn, PeerAuth{CommonAuthInfo: common()}, nil
}

func (unixCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "unix-peercred"}
}

func (unixCredentials) Clone() credentials.TransportCredentials { return unixCredentials{} }

func (unixCredentials) OverrideServerName(string) error { return nil }

func common() credentials.CommonAuthInfo {
	return credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}
}

func peerCred(conn net.Conn) (PeerCred, error) {
	socket, ok := conn.(*net.UnixConn)
	if !ok {
		return PeerCred{}, errors.New("read peer credentials: not a Unix socket")
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return PeerCred{}, fmt.Errorf("read peer credentials: %w", err)
	}
	var cred *unix.Ucred
	var optErr error
	err = raw.Control(func(fd uintptr) {
		cred, optErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(err, optErr); err != nil {
		return PeerCred{}, fmt.Errorf("read peer credentials: %w", err)
	}
	return PeerCred{UID: cred.Uid, GID: cred.Gid, PID: cred.Pid}, nil
}

// FromContext collects what the transport of a gRPC call says about its peer.
func FromContext(ctx context.Context) Evidence {
	var e Evidence
	p, ok := peer.FromContext(ctx)
	if !ok {
		return e
	}
	switch auth := p.AuthInfo.(type) {
	case PeerAuth:
		e.Peer = &auth.Cred
	case credentials.TLSInfo:
		e.Certificates = auth.State.PeerCertificates
	}
	return e
}
