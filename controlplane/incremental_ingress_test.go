package controlplane

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"sync"
	"time"

	"github.com/heddle-mesh/heddle/controlplane/mesh"
)

func (r changer) ingress(name string) *mesh.Ingress {
	i := &mesh.Ingress{Meta: r.meta(mesh.KindIngress, name), Gateway: mesh.Name{Namespace: "default", Name: "g"}}
	if r.IntN(4) == 0 {
		i.Namespace = "other" // hosts are of one namespace each
	}
	for _, host := range []string{"", "a.example", "*.a.example"} {
		if r.IntN(2) == 0 {
			continue
		}
		h := mesh.IngressHost{Name: host}
		if r.IntN(2) == 0 {
			h.Secret = r.name("c", 3)
		}
		for range r.IntN(3) {
			p := mesh.IngressPath{
				Path:    mesh.StringMatch{Kind: []mesh.MatchKind{mesh.Exact, mesh.Prefix}[r.IntN(2)], Value: []string{"/", "/a", "/a/b/"}[r.IntN(3)]},
				Service: r.name("s", 5), Default: r.IntN(4) == 0,
			}
			if p.Port = uint16(80 + r.IntN(3)); r.IntN(2) == 0 {
				p.Port, p.PortName = 0, "p0"
			}
			h.Paths = append(h.Paths, p)
		}
		i.Hosts = append(i.Hosts, h)
	}
	return i
}

func (r changer) certificate(name string) *mesh.Certificate {
	c := &mesh.Certificate{Meta: r.meta(mesh.KindCertificate, name)}
	if r.IntN(3) == 0 {
		c.Fault = "does not exist"
		return c
	}
	c.Chain, c.Key = selfSigned()
	return c
}

// selfSigned gives a certificate that Envoy takes, always the same.
var selfSigned = sync.OnceValues(func() (string, mesh.PrivateKey) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"a.example"}}
	chain, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		panic(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: chain})),
		mesh.PrivateKey(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
})
