package probe

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Probe is a probe of Kubernetes (core/v1), as far as it can be asked from another
// container: no exec. One of the three is set.
type Probe struct {
	HTTPGet   *HTTPGet   `json:"httpGet"`
	TCPSocket *TCPSocket `json:"tcpSocket"`
	GRPC      *GRPC      `json:"grpc"`
	// TimeoutSeconds is how long an answer may take; 0 is Kubernetes' default of 1.
	TimeoutSeconds int32 `json:"timeoutSeconds"`
}

// HTTPGet is an HTTP request. Any status from 200 to 399 is a success.
type HTTPGet struct {
	Path     string   `json:"path"`
	Port     Port     `json:"port"`
	Host     string   `json:"host"`     // "" is the pod's address
	Scheme   string   `json:"scheme"`   // HTTP, the default, or HTTPS
	Protocol string   `json:"protocol"` // HTTP1, the default, or HTTP2: without TLS
	Headers  []Header `json:"httpHeaders"`
}

// Header is one header of a request.
type Header struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// TCPSocket is a connection, which is closed again.
type TCPSocket struct {
	Port Port   `json:"port"`
	Host string `json:"host"` // "" is the pod's address
}

// GRPC is a call of grpc.health.v1.Health.
type GRPC struct {
	Port    Port   `json:"port"`
	Service string `json:"service"`
	Mode    string `json:"mode"` // Plaintext, the default, or TLS
}

// Port is the number of a port. In JSON it may be a text of digits, as in Kubernetes.
type Port uint16

// UnmarshalJSON implements json.Unmarshaler.
func (p *Port) UnmarshalJSON(data []byte) error {
	text := strings.Trim(string(data), `"`)
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 {
		return fmt.Errorf("port %s is not a number from 1 to 65535; the injector resolves named ports", data)
	}
	*p = Port(n)
	return nil
}

// Parse reads probes by the path that they are asked at, such as /probe/app/liveness, as
// JSON. Fields of a newer Kubernetes are passed over.
func Parse(text string) (map[string]Probe, error) {
	if text == "" {
		return nil, nil
	}
	var out map[string]Probe
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		return nil, fmt.Errorf("read probes: %w", err)
	}
	for path, p := range out {
		if !strings.HasPrefix(path, Prefix) {
			return nil, fmt.Errorf("read probes: path %q does not begin with %s", path, Prefix)
		}
		if err := p.check(); err != nil {
			return nil, fmt.Errorf("read probes: %s: %w", path, err)
		}
	}
	return out, nil
}

func (p Probe) check() error {
	var ports []Port
	if p.HTTPGet != nil {
		ports = append(ports, p.HTTPGet.Port)
		if s := p.HTTPGet.Scheme; s != "" && s != "HTTP" && s != "HTTPS" {
			return fmt.Errorf("httpGet.scheme %q: want HTTP or HTTPS", s)
		}
	}
	if p.TCPSocket != nil {
		ports = append(ports, p.TCPSocket.Port)
	}
	if p.GRPC != nil {
		ports = append(ports, p.GRPC.Port)
	}
	switch {
	case len(ports) != 1:
		return fmt.Errorf("%d of httpGet, tcpSocket and grpc are given; want one", len(ports))
	case ports[0] == 0:
		return fmt.Errorf("no port given")
	case p.TimeoutSeconds < 0:
		return fmt.Errorf("timeoutSeconds is %d", p.TimeoutSeconds)
	}
	return nil
}

func (p Probe) timeout() time.Duration { return time.Duration(max(p.TimeoutSeconds, 1)) * time.Second }
