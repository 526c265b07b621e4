package controlplane

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	filelogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	streamlogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"github.com/heddle-mesh/heddle/controlplane/translate"
	"github.com/heddle-mesh/heddle/controlplane/xds"
	"github.com/heddle-mesh/heddle/controlplane/xds/xdstest"
	"github.com/heddle-mesh/heddle/proxy/envoy"
)

// callOut gives the clusters of services back the TLS that wire leaves out, and the ports
// of bytes a listener each: the outbound one picks its cluster by the original destination, which
// a Unix socket has not. It takes the inbound listeners away: the test serves in their place.
func (w *wiring) callOut() {
	w.t.Helper()
	w.to.Listeners = slices.DeleteFunc(w.to.Listeners, func(l *listenerv3.Listener) bool { return strings.HasPrefix(l.Name, "in-") })
	served := map[string]bool{}
	for _, l := range w.to.Listeners {
		served[l.Name] = true
	}
	for _, c := range w.to.Clusters {
		held := w.cache.Get(xds.Key{Type: translate.ClusterType, Name: c.Name})
		if held == nil || c.LoadAssignment == nil {
			continue
		}
		security := get[*clusterv3.Cluster](w, held.Key).TransportSocket
		if security == nil {
			continue // the program's own port
		}
		c.TransportSocket = w.demands(security)
		if !served[c.Name] {
			w.add(w.service(c.Name), w.bytesTo(c.Name), "")
		}
	}
}

// bytesTo is the outbound chain for services of bytes, but that its cluster is fixed.
func (w *wiring) bytesTo(cluster string) *listenerv3.FilterChain {
	w.t.Helper()
	chain := get[*listenerv3.Listener](w, xds.Key{Type: translate.ListenerType, Name: translate.OutboundName, Variant: CaptureVariant(false)}).FilterChains[0]
	chain.Filters = chain.Filters[1:] // without the choice of a cluster
	proxy := &tcpv3.TcpProxy{}
	if err := chain.Filters[0].GetTypedConfig().UnmarshalTo(proxy); err != nil {
		w.t.Fatal(err)
	}
	proxy.ClusterSpecifier = &tcpv3.TcpProxy_Cluster{Cluster: cluster}
	chain.Filters[0].ConfigType = &listenerv3.Filter_TypedConfig{TypedConfig: pack(w.t, proxy)}
	return chain
}

// demands keeps what a cluster demands of servers, with a certificate and roots that stand
// in the configuration.
func (w *wiring) demands(socket *corev3.TransportSocket) *corev3.TransportSocket {
	if socket == nil {
		return nil
	}
	up := &tlsv3.UpstreamTlsContext{}
	if err := socket.GetTypedConfig().UnmarshalTo(up); err != nil {
		w.t.Fatal(err)
	}
	// The same as at an inbound port, whose code this uses.
	inbound := &corev3.TransportSocket{ConfigType: &corev3.TransportSocket_TypedConfig{
		TypedConfig: pack(w.t, &tlsv3.DownstreamTlsContext{CommonTlsContext: up.CommonTlsContext}),
	}}
	down := &tlsv3.DownstreamTlsContext{}
	if err := w.security(inbound).GetTypedConfig().UnmarshalTo(down); err != nil {
		w.t.Fatal(err)
	}
	up.CommonTlsContext = down.CommonTlsContext
	socket.ConfigType = &corev3.TransportSocket_TypedConfig{TypedConfig: pack(w.t, up)}
	return socket
}

// logLines are lines of an access log.
type logLines []map[string]any

func (l logLines) with(field, text string) logLines {
	return slices.DeleteFunc(slices.Clone(l), func(line map[string]any) bool {
		value, _ := line[field].(string)
		return !strings.Contains(value, text)
	})
}

func (l logLines) has(field, text string) bool { return len(l.with(field, text)) > 0 }

// logToFile has the access log written to a file, in the form that it has.
func (w *wiring) logToFile() {
	w.t.Helper()
	for _, l := range w.to.Listeners {
		w.redirect(l.AccessLog)
		for _, f := range l.FilterChains[0].Filters {
			hcm, proxy := &hcmv3.HttpConnectionManager{}, &tcpv3.TcpProxy{}
			switch config := f.GetTypedConfig(); {
			case config.UnmarshalTo(hcm) == nil:
				w.redirect(hcm.AccessLog)
				f.ConfigType = &listenerv3.Filter_TypedConfig{TypedConfig: pack(w.t, hcm)}
			case config.UnmarshalTo(proxy) == nil:
				w.redirect(proxy.AccessLog)
				f.ConfigType = &listenerv3.Filter_TypedConfig{TypedConfig: pack(w.t, proxy)}
			}
		}
	}
}

func (w *wiring) accessLog() string { return filepath.Join(w.dir, "access.log") }

func (w *wiring) redirect(logs []*accesslogv3.AccessLog) {
	w.t.Helper()
	for _, l := range logs {
		stdout := &streamlogv3.StdoutAccessLog{}
		if err := l.GetTypedConfig().UnmarshalTo(stdout); err != nil {
			w.t.Fatal(err)
		}
		l.Name = "envoy.access_loggers.file"
		l.ConfigType = &accesslogv3.AccessLog_TypedConfig{TypedConfig: pack(w.t, &filelogv3.FileAccessLog{
			Path: w.accessLog(), AccessLogFormat: &filelogv3.FileAccessLog_LogFormat{LogFormat: stdout.GetLogFormat()},
		})}
	}
}

// awaitLog ends Envoy, which then writes what it has kept back, and waits until the
// access log has what is wanted of it.
func (w *wiring) awaitLog(what string, ok func(logLines) bool) {
	w.t.Helper()
	if err := envoy.NewAdmin(filepath.Join(w.dir, "admin")).Quit(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	var text []byte
	w.t.Cleanup(func() {
		if w.t.Failed() {
			w.t.Logf("access log:\n%s", text)
		}
	})
	xdstest.Eventually(w.t, what, func() bool {
		var err error
		if text, err = os.ReadFile(w.accessLog()); err != nil {
			w.t.Fatal(err)
		}
		var lines logLines
		for line := range strings.Lines(string(text)) {
			fields := map[string]any{}
			if json.Unmarshal([]byte(line), &fields) == nil { // the last may be half there
				lines = append(lines, fields)
			}
		}
		return ok(lines)
	})
}
