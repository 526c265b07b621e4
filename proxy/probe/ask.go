package probe

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// maxBody is how much of an answer is read, in bytes; the kubelet stops there too.
const maxBody = 10 << 10

// Sources from which the application is asked at the pod's own address. The capture rules
// let them pass (proxy/capture): from the pod's own address the question would be taken for
// a client's and led to Envoy.
var (
	source4 = net.TCPAddr{IP: net.IPv4(127, 0, 0, 6)}
	source6 = net.TCPAddr{IP: net.ParseIP("::6")}
)

// asker asks applications of one pod.
type asker struct {
	own         []netip.Addr // the pod's addresses, the first the one to ask
	http, http2 *http.Transport
}

func newAsker(own []netip.Addr) *asker {
	a := &asker{own: own}
	// As the kubelet's: no certificate is verified, no proxy asked, no connection kept, and
	// HTTP/2 taken where TLS offers it.
	a.http = &http.Transport{
		DialContext: a.dial, DisableKeepAlives: true, DisableCompression: true, ForceAttemptHTTP2: true,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}
	a.http2 = &http.Transport{DialContext: a.dial, DisableKeepAlives: true, DisableCompression: true, Protocols: new(http.Protocols)}
	a.http2.Protocols.SetUnencryptedHTTP2(true)
	return a
}

// dial connects to the application past the pod's Envoy.
func (a *asker) dial(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{Control: lingerBriefly}
	d.SetMultipathTCP(false)
	if to, err := netip.ParseAddrPort(address); err == nil {
		for _, own := range a.own {
			if own == to.Addr().Unmap() {
				d.LocalAddr = &source4
				if own.Is6() {
					d.LocalAddr = &source6
				}
			}
		}
	}
	return d.DialContext(ctx, network, address)
}

// lingerBriefly keeps the closed connections of probes from filling the pod's table of
// them, as the kubelet does.
func lingerBriefly(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) {
		// In vain it is no harm.
		_ = syscall.SetsockoptLinger(int(fd), syscall.SOL_SOCKET, syscall.SO_LINGER, &syscall.Linger{Onoff: 1, Linger: 1})
	})
}

// ask is nil for a success, and says else what was wrong.
func (a *asker) ask(ctx context.Context, p Probe, userAgent string) error {
	switch {
	case p.HTTPGet != nil:
		return a.httpGet(ctx, p.HTTPGet, userAgent)
	case p.GRPC != nil:
		return a.grpc(ctx, p.GRPC, userAgent)
	}
	conn, err := a.dial(ctx, "tcp", a.address(p.TCPSocket.Host, p.TCPSocket.Port))
	if err != nil {
		return err
	}
	return conn.Close()
}

func (a *asker) address(host string, port Port) string {
	if host == "" && len(a.own) > 0 {
		host = a.own[0].String()
	}
	return net.JoinHostPort(cmp.Or(host, "127.0.0.1"), strconv.Itoa(int(port)))
}

func (a *asker) httpGet(ctx context.Context, p *HTTPGet, userAgent string) error {
	req, err := a.request(ctx, p, userAgent)
	if err != nil {
		return err
	}
	client := &http.Client{Transport: a.http, CheckRedirect: redirect}
	if p.Protocol == "HTTP2" {
		client.Transport = a.http2
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, maxBody)); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	if resp.StatusCode < 200 || resp.StatusCode >= 400 {
		return fmt.Errorf("HTTP probe failed with statuscode: %d", resp.StatusCode)
	}
	return nil
}

func (a *asker) request(ctx context.Context, p *HTTPGet, userAgent string) (*http.Request, error) {
	to, err := url.Parse(p.Path)
	if err != nil { // the kubelet asks such a path as it is
		to = &url.URL{Path: p.Path}
	}
	to.Scheme, to.Host = strings.ToLower(cmp.Or(p.Scheme, "HTTP")), a.address(p.Host, p.Port)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, to.String(), nil)
	if err != nil {
		return nil, err
	}
	for _, h := range p.Headers {
		req.Header.Add(h.Name, h.Value)
	}
	if _, ok := req.Header["User-Agent"]; !ok {
		req.Header.Set("User-Agent", userAgent)
	}
	if accept, ok := req.Header["Accept"]; !ok {
		req.Header.Set("Accept", "*/*")
	} else if accept[0] == "" {
		req.Header.Del("Accept")
	}
	req.Host = req.Header.Get("Host")
	return req, nil
}

// redirect follows redirects within a host; one to elsewhere is a success by itself.
func redirect(req *http.Request, via []*http.Request) error {
	if req.URL.Hostname() != via[0].URL.Hostname() {
		return http.ErrUseLastResponse
	}
	if len(via) >= 10 {
		return errors.New("stopped after 10 redirects")
	}
	return nil
}

func (a *asker) grpc(ctx context.Context, p *GRPC, userAgent string) error {
	creds := insecure.NewCredentials()
	if p.Mode == "TLS" {
		creds = credentials.NewTLS(&tls.Config{InsecureSkipVerify: true})
	}
	conn, err := grpc.NewClient("passthrough:///"+a.address("", p.Port),
		grpc.WithTransportCredentials(creds), grpc.WithUserAgent(userAgent),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) { return a.dial(ctx, "tcp", address) }))
	if err != nil {
		return err
	}
	defer conn.Close()
	answer, err := healthv1.NewHealthClient(conn).Check(ctx, &healthv1.HealthCheckRequest{Service: p.Service})
	if err != nil {
		s := status.Convert(err)
		return fmt.Errorf("health call failed: %s (%s)", s.Message(), s.Code())
	}
	if s := answer.GetStatus(); s != healthv1.HealthCheckResponse_SERVING {
		return fmt.Errorf("service unhealthy (responded with %q)", s)
	}
	return nil
}
