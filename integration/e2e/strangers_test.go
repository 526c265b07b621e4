package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"net/url"
	"os"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
)

// strangers: who has no certificate of the mesh's CA gets nothing on the port where
// proxies get their configuration, even with the right name in a certificate of its own.
func strangers(p *project) {
	for name, certificates := range map[string][]tls.Certificate{
		"without a certificate": nil, "with a foreign CA's": {foreignCertificate(p.t, webID)},
	} {
		// Servers are not checked: the stranger would not mind.
		config := &tls.Config{InsecureSkipVerify: true, Certificates: certificates}
		conn, err := grpc.NewClient("passthrough:///127.0.0.1:15010", grpc.WithContextDialer(p.Dial),
			grpc.WithTransportCredentials(credentials.NewTLS(config)))
		if err != nil {
			p.t.Fatal(err)
		}
		if got, err := askForClusters(p.t.Context(), conn); err == nil || status.Code(err) == codes.DeadlineExceeded {
			p.t.Errorf("%s: %v, %v", name, got, err)
		} else {
			p.t.Logf("%s: %v", name, err)
		}
		conn.Close()
	}
}

// askForClusters asks as web's proxy would.
func askForClusters(ctx context.Context, conn *grpc.ClientConn) (*discoveryv3.DeltaDiscoveryResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		return nil, err
	}
	// An error of Send says nothing; Recv tells it.
	_ = stream.Send(&discoveryv3.DeltaDiscoveryRequest{
		Node: &corev3.Node{Id: "default/web-0", Cluster: "web.default"}, TypeUrl: "type.googleapis.com/envoy.config.cluster.v3.Cluster",
	})
	return stream.Recv()
}

// Dial connects from the network that the workloads' own are connected to.
func (p *project) Dial(_ context.Context, address string) (net.Conn, error) {
	cmd, err := p.outside("pipe", address)
	if err != nil {
		return nil, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "ours"), os.NewFile(uintptr(pair[1]), "theirs")
	defer ours.Close()
	defer theirs.Close()
	cmd.Stdin, cmd.Stdout = theirs, theirs
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	p.t.Cleanup(func() { _ = cmd.Wait() }) // ends with the connection
	return conn, nil
}

// foreignCertificate makes a certificate with a SPIFFE ID of the mesh that signs itself.
func foreignCertificate(t *testing.T, id string) tls.Certificate {
	t.Helper()
	uri, err := url.Parse(id)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		URIs: []*url.URL{uri}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
