package ca

import (
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"slices"
)

// linkFile has, for each of the last rotations, the newest first, two certificates: the link,
// which is the new root's key signed by the former root, and the former root.
const linkFile = "root-links.pem"

// maxLinks is for how many rotations a workload finds us that was given a root before them.
// Each costs a kilobyte in every handshake of an agent.
const maxLinks = 3

// link certifies the key of next by root, as the "new with old" of RFC 4210, section 4.4.
// Roots are given to pods when they are made, and to holders of join tokens, and cannot be
// taken back: by links such a root leads to the one of today. It makes nobody trust a
// former root who was not told to.
func link(next, root *keyPair) (*x509.Certificate, error) {
	template := *next.cert
	template.SerialNumber = nil // another than the root's own
	template.AuthorityKeyId = root.cert.SubjectKeyId
	template.NotAfter = earlier(next.cert.NotAfter, root.cert.NotAfter)
	der, err := x509.CreateCertificate(rand.Reader, &template, root.cert, next.key.Public(), root.key)
	if err != nil {
		return nil, fmt.Errorf("link the next root to the present one: %w", err)
	}
	return x509.ParseCertificate(der)
}

// linked is links with one more in front, without what a crash half-way left.
func linked(links []*x509.Certificate, one, former *x509.Certificate) []*x509.Certificate {
	if len(links) >= 2 && links[1].Equal(former) {
		links = links[2:]
	}
	all := append([]*x509.Certificate{one, former}, links...)
	return all[:min(len(all), 2*maxLinks)]
}

// Links are the certificates that lead from former roots, which are among them, to the one
// that signs: a server sends them to clients that were given a root long ago.
func (c *CA) Links() []*x509.Certificate { return slices.Clone(c.current.Load().links) }

func parseLinks(data []byte) ([]*x509.Certificate, error) {
	if len(data) == 0 {
		return nil, nil
	}
	links, err := parseCertificates(data)
	if err == nil && len(links)%2 != 0 {
		err = fmt.Errorf("has %d certificates, and they go in pairs of a link and a former root", len(links))
	}
	return links, err
}
