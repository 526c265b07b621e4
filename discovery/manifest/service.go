package manifest

import (
	"strings"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
)

type serviceSpec struct {
	Selector        map[string]string `json:"selector,omitempty" keys:"labelKey" is:"labelValue"`
	Ports           []servicePort     `json:"ports,omitempty"`
	ClusterIP       string            `json:"clusterIP,omitempty"`
	Type            string            `json:"type,omitempty" in:"ClusterIP"`
	PublishNotReady bool              `json:"publishNotReadyAddresses,omitempty"`
	Distribution    string            `json:"trafficDistribution,omitempty" in:"PreferSameZone|PreferClose|PreferSameNode"`

	ExternalName    unsupported `json:"-" field:"externalName" unsupported:"only services of the mesh have documents"`
	SessionAffinity unsupported `json:"-" field:"sessionAffinity" unsupported:"remove it; requests go to the endpoint with the fewest"`
	ClusterIPs      unsupported `json:"-" field:"clusterIPs" unsupported:"remove it; virtual addresses are given out by the mesh"`
}

type servicePort struct {
	Name        string `json:"name,omitempty" is:"label1123"`
	Port        uint16 `json:"port" need:"the port's number" min:"1" max:"65535"`
	TargetPort  uint16 `json:"targetPort,omitempty" min:"1" max:"65535"`
	Protocol    string `json:"protocol,omitempty" in:"TCP"`
	AppProtocol string `json:"appProtocol,omitempty" min:"1" is:"labelKey"`

	NodePort unsupported `json:"-" field:"nodePort" unsupported:"remove it"`
}

// protocols are the values of appProtocol, and of the first word of a port's name, that
// are not plain TCP. kubernetes.io/... are KEP-3726's.
var protocols = map[string]mesh.Protocol{
	"http":               mesh.HTTP,
	"kubernetes.io/ws":   mesh.HTTP,
	"http2":              mesh.HTTP2,
	"h2c":                mesh.HTTP2,
	"kubernetes.io/h2c":  mesh.HTTP2,
	"grpc":               mesh.GRPC,
	"kubernetes.io/grpc": mesh.GRPC,
}

func (p *servicePort) check(c cursor) {
	known := []string{"tcp", "tls", "https", "mongo", "postgresql", "mysql", "redis", "kubernetes.io/wss"}
	for name := range protocols {
		known = append(known, name)
	}
	// Any other name is TCP, as Kubernetes allows; only a slip of the pen is refused.
	for _, k := range known {
		if p.AppProtocol != k && strings.EqualFold(p.AppProtocol, k) {
			c.at("appProtocol").errorf("%s is not known; did you mean %s?", quote(p.AppProtocol), k)
		}
	}
}

func (s *serviceSpec) checkSpec(c cursor, _ metadata) {
	if s.ClusterIP != "" && s.ClusterIP != "None" {
		c.at("clusterIP").errorf("%s cannot be chosen; remove it, virtual addresses are given out by the mesh, or write None for a headless service", quote(s.ClusterIP))
	}
	ports := c.at("ports")
	if len(s.Ports) == 0 && s.ClusterIP != "None" {
		ports.errorf("missing; give at least one port")
	}
	names, numbers := make(map[string]int), make(map[uint16]int)
	for i, p := range s.Ports {
		if p.Name == "" && len(s.Ports) > 1 {
			ports.index(i).at("name").errorf("missing; ports need names where there are several")
		}
		if first, again := names[p.Name]; again && p.Name != "" {
			ports.index(i).at("name").errorf("%s is the name of ports[%d] already; give each port its own", quote(p.Name), first)
		}
		if first, again := numbers[p.Port]; again && p.Port != 0 {
			ports.index(i).at("port").errorf("%d is the number of ports[%d] already; remove one of the two", p.Port, first)
		}
		names[p.Name], numbers[p.Port] = i, i
	}
}

// PortProtocol is what a service's port speaks: its appProtocol says so, else the part of
// its name before a dash (the habit of Istio and others), else it is TCP.
func PortProtocol(appProtocol, name string) mesh.Protocol {
	word := appProtocol
	if word == "" {
		word, _, _ = strings.Cut(name, "-")
	}
	if found, ok := protocols[word]; ok {
		return found
	}
	return mesh.TCP
}

// TrafficDistribution reads the field of that name (KEP-4444 and KEP-3015); PreferClose is the
// older name of PreferSameZone.
func TrafficDistribution(value string) mesh.Preference {
	switch value {
	case "PreferClose", "PreferSameZone":
		return mesh.PreferZone
	case "PreferSameNode":
		return mesh.PreferNode
	}
	return mesh.PreferDefault
}

func (s *serviceSpec) build(meta mesh.Meta, _ metadata, _ Options) mesh.Object {
	svc := &mesh.Service{Meta: meta, Selector: s.Selector, Headless: s.ClusterIP == "None", PublishNotReady: s.PublishNotReady, Prefer: TrafficDistribution(s.Distribution)}
	for _, p := range s.Ports {
		port := mesh.ServicePort{Name: p.Name, Port: p.Port, Target: p.TargetPort, Protocol: PortProtocol(p.AppProtocol, p.Name)}
		if port.Target == 0 {
			port.Target = p.Port
		}
		svc.Ports = append(svc.Ports, port)
	}
	return svc
}

// serviceRef is a name of a service in one of Gateway API's references.
func serviceRef(namespace, name string, m metadata) mesh.Name {
	if namespace == "" {
		namespace = m.Namespace
	}
	return mesh.Name{Namespace: namespace, Name: name}
}
