package webhook

import (
	"crypto/x509"
	"testing"
	"time"
)

// TestClockSkew: the API server takes our certificate though its clock is five minutes
// behind ours or ahead; how far is too far shows that its clock matters.
func TestClockSkew(t *testing.T) {
	now := time.Now()
	data, err := issue([]string{"heddle-controlplane.heddle-system.svc"}, now, nil)
	if err != nil {
		t.Fatal(err)
	}
	c, err := parse(data)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(c.bundle)
	for _, at := range []struct {
		ahead time.Duration
		taken bool
	}{{-5*time.Minute - time.Second, true}, {5*time.Minute + time.Second, true}, {-time.Hour, false}} {
		_, err := c.serving.Leaf.Verify(x509.VerifyOptions{DNSName: "heddle-controlplane.heddle-system.svc", Roots: roots, CurrentTime: now.Add(at.ahead)})
		if (err == nil) != at.taken {
			t.Errorf("by a clock that is %s ahead: %v", at.ahead, err)
		}
	}
}
