package envoy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// maxAnswer limits an answer of the admin interface, in bytes. The dump of a
// proxy with 1,000 clusters has 5 MB.
const maxAnswer = 64 << 20

// Admin talks to the admin interface of a running Envoy over its Unix socket.
// It is safe for concurrent use. Every method's error names the request.
type Admin struct{ client *http.Client }

// NewAdmin returns the client for the socket at path. Nothing is connected yet.
func NewAdmin(path string) *Admin {
	return &Admin{&http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
		// Envoy may be replaced by a new one at any time.
		DisableKeepAlives: true,
	}}}
}

// A NotReadyError says in which state an Envoy is that does not serve yet or
// does so no more.
type NotReadyError struct{ State string }

func (e *NotReadyError) Error() string { return "envoy is not ready: " + e.State }

// Ready is nil when Envoy serves: its first configuration is complete and it is
// not draining. Otherwise it is a *NotReadyError, or why Envoy cannot be asked.
func (a *Admin) Ready(ctx context.Context) error {
	_, err := a.do(ctx, http.MethodGet, "/ready")
	if status := (*statusError)(nil); errors.As(err, &status) && status.code == http.StatusServiceUnavailable {
		return &NotReadyError{State: status.said}
	}
	return err
}

// ServerInfo returns version, state, uptime and command line.
func (a *Admin) ServerInfo(ctx context.Context) (*adminv3.ServerInfo, error) {
	info := new(adminv3.ServerInfo)
	return info, a.decode(ctx, "/server_info", info)
}

// Clusters returns every cluster with its hosts and their health.
func (a *Admin) Clusters(ctx context.Context) (*adminv3.Clusters, error) {
	clusters := new(adminv3.Clusters)
	return clusters, a.decode(ctx, "/clusters?format=json", clusters)
}

// ConfigDump returns the configuration that Envoy holds, endpoints included, as
// the JSON of an envoy.admin.v3.ConfigDump. Envoy redacts private keys.
func (a *Admin) ConfigDump(ctx context.Context) ([]byte, error) {
	return a.do(ctx, http.MethodGet, "/config_dump?include_eds")
}

// Prometheus returns the statistics in Prometheus' text format.
func (a *Admin) Prometheus(ctx context.Context) ([]byte, error) {
	return a.do(ctx, http.MethodGet, "/stats/prometheus")
}

// DrainListeners makes Envoy ask its peers to go elsewhere (GOAWAY on HTTP/2,
// "connection: close" on HTTP/1) for the time of its --drain-time-s, and stop
// listening after that. It goes on serving, and does not exit.
func (a *Admin) DrainListeners(ctx context.Context) error {
	_, err := a.do(ctx, http.MethodPost, "/drain_listeners?graceful&skip_exit")
	return err
}

// SetLogLevel changes the level of all loggers: trace, debug, info, warning,
// error, critical or off.
func (a *Admin) SetLogLevel(ctx context.Context, level string) error {
	_, err := a.do(ctx, http.MethodPost, "/logging?level="+url.QueryEscape(level))
	return err
}

// Quit makes Envoy exit at once, with code 0.
func (a *Admin) Quit(ctx context.Context) error {
	_, err := a.do(ctx, http.MethodPost, "/quitquitquit")
	return err
}

func (a *Admin) decode(ctx context.Context, path string, into proto.Message) error {
	body, err := a.do(ctx, http.MethodGet, path)
	if err != nil {
		return err
	}
	// Another Envoy's answer may have fields that we do not know.
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(body, into); err != nil {
		return fmt.Errorf("envoy admin GET %s: %w", path, err)
	}
	return nil
}

// A statusError is an answer other than 200.
type statusError struct {
	code int
	said string
}

func (e *statusError) Error() string { return fmt.Sprintf("%d %s", e.code, e.said) }

func (a *Admin) do(ctx context.Context, method, path string) ([]byte, error) {
	body, err := a.roundTrip(ctx, method, path)
	if err != nil {
		return nil, fmt.Errorf("envoy admin %s %s: %w", method, path, err)
	}
	return body, nil
}

func (a *Admin) roundTrip(ctx context.Context, method, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://envoy"+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := a.client.Do(req)
	if err != nil {
		if u := (*url.Error)(nil); errors.As(err, &u) {
			err = u.Err // the URL is our own invention
		}
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, err
	case len(body) > maxAnswer:
		return nil, fmt.Errorf("the answer has more than %d bytes", maxAnswer)
	case resp.StatusCode != http.StatusOK:
		return nil, &statusError{resp.StatusCode, strings.TrimSpace(fmt.Sprintf("%.200s", body))}
	}
	return body, nil
}
