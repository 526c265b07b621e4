package mesh

// Gateway is the entrance of the mesh for clients outside of it: equal proxies that no
// application stands beside. Its name is the namespace and the service account that they
// are attested to have, so that nobody else is given what they hold.
type Gateway struct{ Meta }

// Ports of a gateway's proxies, open for everybody. Their user may not open lower ones; the
// gateway's Service has those.
const (
	GatewayPlainPort  = 8080
	GatewaySecurePort = 8443
)

// Ingress is what one object lets in by a gateway. It is Kubernetes' networking.k8s.io/v1
// Ingress.
type Ingress struct {
	Meta
	// Gateway is the one that serves it.
	Gateway Name
	Hosts   []IngressHost
	// Faults are what of the object is not served, whatever else the mesh holds.
	Faults []Fault
}

// IngressHost is what an Ingress serves under one name.
type IngressHost struct {
	// Name is in lower case. *.DOMAIN is any name with one label more than DOMAIN, and ""
	// any name at all.
	Name  string
	Paths []IngressPath
	// Secret holds the certificate for the name; the zero Name: it is served in the clear.
	Secret Name
	// Field and SecretField are where the object names host and Secret, for people.
	Field, SecretField string
}

// IngressPath leads requests to a port of a service in the Ingress's namespace.
type IngressPath struct {
	Path StringMatch
	// Default is set for what is to be had only where no path of the host matches.
	Default bool
	Service Name
	// Port is the number of the service's port, or 0: PortName says it then.
	Port     uint16
	PortName string
	// Field is where the object says so, for people.
	Field string
}

// Certificate is one that a gateway shows to its clients. It is what the mesh keeps of a
// Secret, and only of those that an Ingress names.
type Certificate struct {
	Meta
	// Chain is in PEM, the server's own certificate first. It is empty where there is none
	// that can be used.
	Chain string
	Key   PrivateKey
	// Fault is what is wrong with the Secret as it is now, to be read after its name, and
	// after a semicolon how to mend it; or "". Chain and Key are the last good ones then.
	Fault string
}

// PrivateKey is a private key in PEM. It does not show itself when it is printed.
type PrivateKey string

// String implements fmt.Stringer.
func (PrivateKey) String() string { return "(private key)" }

// GoString implements fmt.GoStringer.
func (PrivateKey) GoString() string { return "(private key)" }

// MarshalText implements encoding.TextMarshaler.
func (PrivateKey) MarshalText() ([]byte, error) { return []byte("(private key)"), nil }

// Fault is a field of an object that cannot be served.
type Fault struct {
	Field   string // its path, such as spec.rules[0].host
	Message string // what is wrong, and after a semicolon how to mend it
}

// String is FIELD: MESSAGE.
func (f Fault) String() string { return f.Field + ": " + f.Message }

// BackendServices are the services that the Ingress leads to, each once.
func (i *Ingress) BackendServices() []Name {
	var out []Name
	for _, h := range i.Hosts {
		for _, p := range h.Paths {
			out = append(out, p.Service)
		}
	}
	return distinct(out)
}

// Secrets are the Secrets that the Ingress names, each once.
func (i *Ingress) Secrets() []Name {
	var out []Name
	for _, h := range i.Hosts {
		if h.Secret != (Name{}) {
			out = append(out, h.Secret)
		}
	}
	return distinct(out)
}

// applyEdge puts a change of what gateways serve into a snapshot that is not published yet.
func (s *Snapshot) applyEdge(c Change, old Object) {
	switch c.Ref.Kind {
	case KindGateway:
		s.Gateways = put(s.Gateways, c.Ref.Name, as[*Gateway](c.Object))
	case KindCertificate:
		s.Certificates = put(s.Certificates, c.Ref.Name, as[*Certificate](c.Object))
	case KindIngress:
		oldV, newV := as[*Ingress](old), as[*Ingress](c.Object)
		s.Ingresses = put(s.Ingresses, c.Ref.Name, newV)
		s.ingressesOf = reindex(s.ingressesOf, oldV, newV, compareAges, func(i *Ingress) []Name { return []Name{i.Gateway} })
		s.ingressesTo = reindex(s.ingressesTo, oldV, newV, compareAges, (*Ingress).BackendServices)
		s.holdersOf = reindex(s.holdersOf, oldV, newV, compareAges, (*Ingress).Secrets)
	}
}
