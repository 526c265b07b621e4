package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
)

// entrance is where a client of an ingress connects to, whatever the URL's host, and whom
// it believes.
type entrance struct{ to, ca string }

func (e *entrance) flags(fs *flag.FlagSet) {
	fs.StringVar(&e.to, "to", "", "address to connect to in place of the URL's host")
	fs.StringVar(&e.ca, "ca", "", "file with the certificates that servers' are to be signed by")
}

// transport makes a client's transport, changed if there is anything to change.
func (e *entrance) transport(t *http.Transport) (*http.Transport, error) {
	if e.ca != "" {
		text, err := os.ReadFile(e.ca)
		if err != nil {
			return nil, err
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("%s has no certificate", e.ca)
		}
		t.TLSClientConfig, t.ForceAttemptHTTP2 = &tls.Config{RootCAs: pool}, true
	}
	if e.to != "" {
		t.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			_, port, err := net.SplitHostPort(address)
			if err != nil {
				return nil, err
			}
			var d net.Dialer
			return d.DialContext(ctx, network, net.JoinHostPort(e.to, port))
		}
	}
	return t, nil
}

// visited is what a visit tells.
type visited struct {
	answer
	Protocol string `json:"protocol,omitempty"`
	Location string `json:"location,omitempty"`
	Serial   string `json:"serial,omitempty"` // of the server's certificate
}

// visit asks for a URL as a browser would: visit [-to ADDRESS] [-ca FILE] [-host HOST] [-http1] URL [HEADER=VALUE...].
func visit(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("visit", flag.ContinueOnError)
	host := fs.String("host", "", "Host header, if it is not the URL's")
	http1 := fs.Bool("http1", false, "speak HTTP/1.1, over TLS too")
	var e entrance
	e.flags(fs)
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() == 0 {
		return errors.New("want visit URL")
	}
	transport, err := e.transport(&http.Transport{DisableKeepAlives: true})
	if err != nil {
		return err
	}
	transport.ForceAttemptHTTP2 = transport.ForceAttemptHTTP2 && !*http1
	ctx, cancel := context.WithTimeout(ctx, patience) // a client's own would hide that a stream can be written to
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fs.Arg(0), nil)
	if err != nil {
		return err
	}
	request.Host = *host
	for _, header := range fs.Args()[1:] {
		name, value, _ := strings.Cut(header, "=")
		request.Header[name] = []string{value} // as it is written
	}
	client := &http.Client{Transport: transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	response, err := client.Do(request)
	if err != nil {
		return tell(answer{Error: reason(err)})
	}
	defer response.Body.Close()
	if stream, ok := response.Body.(io.Writer); ok { // the server has switched protocols
		fmt.Fprintln(stream, "hello")
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, 16<<20))
	if err != nil {
		return tell(answer{Code: response.StatusCode, Error: reason(err)})
	}
	out := visited{answer: answer{Code: response.StatusCode, Body: string(body)}, Protocol: response.Proto, Location: response.Header.Get("Location")}
	if response.TLS != nil {
		out.Serial = response.TLS.PeerCertificates[0].SerialNumber.String()
	}
	return tell(out)
}
