package server

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"sync"
	"time"

	gospiffe "github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/heddle-mesh/heddle/identity/ca"
	"github.com/heddle-mesh/heddle/identity/channel"
	"github.com/heddle-mesh/heddle/identity/spiffeid"
)

// OwnSVID is the control plane's own identity, issued by its own CA. It implements
// [x509svid.Source] and renews the SVID, with a new key, when it is asked for after half
// of its life, or after another root began to sign. Servers send that root along, and who
// knows only that one could not verify an SVID of the former.
type OwnSVID struct {
	ca *ca.CA
	id spiffeid.ID

	mu      sync.Mutex // guards what follows
	svid    *x509svid.SVID
	root    *x509.Certificate // that signed when svid was made
	renewAt time.Time
}

// NewOwnSVID makes the identity and its first SVID.
func NewOwnSVID(authority *ca.CA) (*OwnSVID, error) {
	id, err := channel.ControlPlane(authority.TrustDomain().Name())
	if err != nil {
		return nil, err
	}
	o := &OwnSVID{ca: authority, id: id}
	if _, err := o.GetX509SVID(); err != nil {
		return nil, err
	}
	return o, nil
}

// Format keeps the key out of logs whatever the verb.
func (o *OwnSVID) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "own SVID of %s", o.id) }

// GetX509SVID implements [x509svid.Source]. An SVID that can not be renewed is used to
// its end.
func (o *OwnSVID) GetX509SVID() (*x509svid.SVID, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	now, root := time.Now(), o.ca.Root()
	if now.Before(o.renewAt) && root.Equal(o.root) {
		return o.svid, nil
	}
	svid, err := o.issue()
	if err != nil {
		if o.svid != nil && now.Before(o.svid.Certificates[0].NotAfter) {
			return o.svid, nil
		}
		return nil, err
	}
	o.svid, o.root, o.renewAt = svid, root, now.Add(svid.Certificates[0].NotAfter.Sub(now)/2)
	return svid, nil
}

func (o *OwnSVID) issue() (*x509svid.SVID, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, fmt.Errorf("make certificate signing request: %w", err)
	}
	csr, err := ca.ParseCSR(der)
	if err != nil {
		return nil, err
	}
	chain, err := o.ca.Sign(csr, o.id)
	if err != nil {
		return nil, err
	}
	id, err := gospiffe.FromString(o.id.String())
	if err != nil {
		return nil, err
	}
	// By the links clients find us that were given a root of former days.
	return &x509svid.SVID{ID: id, Certificates: append(chain, o.ca.Links()...), PrivateKey: key}, nil
}
