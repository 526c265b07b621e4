package kubetest

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"time"

	"k8s.io/client-go/rest"
)

// startTime is more than an API server takes to become ready on a machine that is busy.
const startTime = 3 * time.Minute

// Server is an API server with its etcd.
type Server struct {
	dir, etcdURL, url string
	program           string
	args              []string
	pki               *pki
	etcd, api         *process
	admin             *rest.Config
	client            *http.Client
}

// Start starts etcd and an API server with their files in dir, and waits until they are
// ready. Stop ends them. Flags are more of kube-apiserver's.
func Start(ctx context.Context, dir string, flags ...string) (*Server, error) {
	etcd, apiserver, err := Programs()
	if err != nil {
		return nil, err
	}
	s := &Server{dir: dir, program: apiserver}
	if err := s.startEtcd(ctx, etcd); err != nil {
		s.Stop()
		return nil, err
	}
	if err := s.prepare(); err != nil {
		s.Stop()
		return nil, err
	}
	s.args = append(s.args, flags...)
	if err := s.Restart(ctx); err != nil {
		s.Stop()
		return nil, err
	}
	return s, nil
}

func (s *Server) startEtcd(ctx context.Context, program string) error {
	client, err := freePort()
	if err != nil {
		return err
	}
	peer, err := freePort()
	if err != nil {
		return err
	}
	s.etcdURL = fmt.Sprintf("http://127.0.0.1:%d", client)
	peerURL := fmt.Sprintf("http://127.0.0.1:%d", peer)
	s.etcd, err = start(filepath.Join(s.dir, "etcd.log"), program,
		"--data-dir="+filepath.Join(s.dir, "etcd"), "--unsafe-no-fsync", "--log-level=warn",
		"--listen-client-urls="+s.etcdURL, "--advertise-client-urls="+s.etcdURL,
		"--listen-peer-urls="+peerURL, "--initial-advertise-peer-urls="+peerURL, "--initial-cluster=default="+peerURL)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	return s.etcd.await(ctx, http.DefaultClient, s.etcdURL+"/health")
}

// prepare makes the API server's certificates and arguments.
func (s *Server) prepare() error {
	port, err := freePort()
	if err != nil {
		return err
	}
	if s.pki, err = newPKI(s.dir); err != nil {
		return err
	}
	s.url = fmt.Sprintf("https://127.0.0.1:%d", port)
	s.args = []string{
		"--etcd-servers=" + s.etcdURL, "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", port),
		"--tls-cert-file=" + s.pki.file("server.crt"), "--tls-private-key-file=" + s.pki.file("server.key"), "--client-ca-file=" + s.pki.file("ca.crt"),
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + s.pki.file("accounts.key"), "--service-account-signing-key-file=" + s.pki.file("accounts.key"),
		"--service-cluster-ip-range=10.96.0.0/16,fd00:10:96::/112", "--authorization-mode=RBAC", "--endpoint-reconciler-type=none",
		// Without a controller manager nobody makes service accounts for the pods.
		"--disable-admission-plugins=ServiceAccount", "--profiling=false",
	}
	if s.admin, err = s.User("admin", "system:masters"); err != nil {
		return err
	}
	s.client, err = rest.HTTPClientFor(s.admin)
	return err
}

// User is how somebody of that name and those groups reaches the API server.
func (s *Server) User(name string, groups ...string) (*rest.Config, error) {
	cert, key, err := s.pki.user(name, groups...)
	if err != nil {
		return nil, err
	}
	return &rest.Config{Host: s.url, QPS: -1, TLSClientConfig: rest.TLSClientConfig{CAData: s.pki.caPEM, CertData: cert, KeyData: key}}, nil
}

// Admin is how somebody who may do everything reaches the API server.
func (s *Server) Admin() *rest.Config { return rest.CopyConfig(s.admin) }

// Kill ends the API server, as a crash does. Its objects stay in etcd.
func (s *Server) Kill() { s.api.kill() }

// Restart starts the API server again, after Kill, with the same address and objects.
func (s *Server) Restart(ctx context.Context) (err error) {
	if s.api, err = start(filepath.Join(s.dir, "apiserver.log"), s.program, s.args...); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	return s.api.await(ctx, s.client, s.url+"/readyz")
}

// Stop ends both programs.
func (s *Server) Stop() {
	for _, p := range []*process{s.api, s.etcd} {
		if p != nil {
			p.kill()
		}
	}
}
