package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
)

// sessions is what came of connections, each made anew.
type sessions struct {
	OK       int            `json:"ok"`
	Failed   int            `json:"failed"`
	Failures map[string]int `json:"failures"` // errors, by how often
	Own      map[string]int `json:"own"`      // sessions by the serial number of our certificate
	Peer     map[string]int `json:"peer"`     // and by that of the peer's

	mu sync.Mutex // held while anything is counted
}

// handshakes makes TLS connections with a workload's SVIDs, as they come from the Workload
// API, at a constant rate until its standard input ends, and has one request answered over
// each: handshakes SOCKET ADDRESS:PORT RATE.
func handshakes(ctx context.Context, args []string) error {
	if len(args) != 3 {
		return errUsage
	}
	source, err := workloadapi.NewX509Source(ctx, workloadapi.WithClientOptions(workloadapi.WithAddr("unix://"+args[0])))
	if err != nil {
		return err
	}
	defer source.Close()
	return repeat(ctx, args[2], func(ctx context.Context, s *sessions) error { return s.request(ctx, source, args[1]) })
}

// connects does the same without TLS and to a server that speaks first: connects ADDRESS:PORT RATE.
func connects(ctx context.Context, args []string) error {
	if len(args) != 2 {
		return errUsage
	}
	return repeat(ctx, args[1], func(ctx context.Context, _ *sessions) error {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", args[0])
		if err != nil {
			return err
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(patience))
		_, err = bufio.NewReader(conn).ReadString('\n')
		return err
	})
}

// repeat does something at a constant rate and tells what came of it.
func repeat(ctx context.Context, rate string, do func(context.Context, *sessions) error) error {
	n, err := strconv.Atoi(rate)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	s := &sessions{Failures: map[string]int{}, Own: map[string]int{}, Peer: map[string]int{}}
	var group sync.WaitGroup
	tick := time.NewTicker(time.Second / time.Duration(n))
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-tick.C:
			group.Go(func() { s.count(do(context.WithoutCancel(ctx), s)) })
		case <-ctx.Done():
		}
	}
	group.Wait()
	return tell(s)
}

func (s *sessions) count(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.OK++
		return
	}
	s.Failed++
	s.Failures[err.Error()]++
}

// request makes one session. That the server takes our certificate is only known when it
// answers (TLS 1.3).
func (s *sessions) request(ctx context.Context, source *workloadapi.X509Source, address string) error {
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer raw.Close()
	_ = raw.SetDeadline(time.Now().Add(patience))
	config := tlsconfig.MTLSClientConfig(source, source, tlsconfig.AuthorizeAny())
	own, give := "", config.GetClientCertificate
	config.GetClientCertificate = func(info *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		certificate, err := give(info)
		if err != nil {
			return nil, err
		}
		leaf, err := x509.ParseCertificate(certificate.Certificate[0])
		if err == nil {
			own = leaf.SerialNumber.String()
		}
		return certificate, err
	}
	conn := tls.Client(raw, config)
	if _, err := fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: api\r\nConnection: close\r\n\r\n"); err != nil {
		return err
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", response.StatusCode)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Own[own]++
	s.Peer[conn.ConnectionState().PeerCertificates[0].SerialNumber.String()]++
	return nil
}
