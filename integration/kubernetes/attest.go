package kubernetes

import (
	"context"
	"fmt"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"

	"github.com/heddle-mesh/heddle/identity/attest"
	"github.com/heddle-mesh/heddle/identity/spiffeid"
)

// Audience is that of the tokens by which pods prove who they are: a token for the API
// server or for any other service says nothing here, and ours says nothing there.
const Audience = "heddle"

// maxToken bounds a service account token, in bytes; one has about 1,300.
const maxToken = 16 << 10

// podWait is how long an attestation waits for our watch to bring the pod: its agent may
// ask a moment earlier.
const podWait = 5 * time.Second

// Keys of TokenReview's extra fields, as the API server names them.
const (
	extraPodName = "authentication.kubernetes.io/pod-name"
	extraPodUID  = "authentication.kubernetes.io/pod-uid"
)

// A Pod is what an attestation must know of one.
type Pod struct {
	UID, ServiceAccount string
}

// Pods finds pods.
type Pods interface {
	// AwaitPod gives the pod with that UID, waiting for it until the context is done: one
	// of the same name may have gone before it.
	AwaitPod(ctx context.Context, namespace, name, uid string) (Pod, error)
}

// Attestor takes the projected service account token of a pod. The API server says whose
// it is (TokenReview), for which audience, and to which pod it is bound; that pod must be
// there, with the same UID and service account. The identity is
// spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT.
func (c *Client) Attestor(trustDomain string, pods Pods) attest.Attestor {
	return func(ctx context.Context, e attest.Evidence) (attest.Attested, error) {
		if e.ServiceAccountToken == "" {
			return attest.Attested{}, attest.ErrNotMine
		}
		user, err := c.review(ctx, e.ServiceAccountToken)
		if err != nil {
			return attest.Attested{}, err
		}
		namespace, account, err := serviceAccount(user.Username)
		if err != nil {
			return attest.Attested{}, err
		}
		name, uid := first(user.Extra[extraPodName]), first(user.Extra[extraPodUID])
		if name == "" || uid == "" {
			return attest.Attested{}, fmt.Errorf("%w: the service account token of %s/%s is not bound to a pod; use a projected volume, not a Secret", attest.ErrUnauthenticated, namespace, account)
		}
		wait, cancel := context.WithTimeout(ctx, podWait)
		defer cancel()
		pod, err := pods.AwaitPod(wait, namespace, name, uid)
		if err != nil {
			return attest.Attested{}, fmt.Errorf("%w: pod %s/%s of the token is not known: %v", attest.ErrUnauthenticated, namespace, name, err)
		}
		if pod.UID != uid || pod.ServiceAccount != account {
			return attest.Attested{}, fmt.Errorf("%w: the token is of an earlier pod %s/%s", attest.ErrUnauthenticated, namespace, name)
		}
		id, err := spiffeid.New(trustDomain, namespace, account)
		if err != nil {
			return attest.Attested{}, fmt.Errorf("%w: %v", attest.ErrDenied, err)
		}
		if !e.Requested.IsZero() && e.Requested != id {
			return attest.Attested{}, fmt.Errorf("%w: the token is of %s, and %s was asked for", attest.ErrDenied, id, e.Requested)
		}
		return attest.Attested{ID: id}, nil
	}
}

// review asks the API server whose token it is. A refusal is ErrUnauthenticated; an API
// server that cannot be asked is neither, so that the agent tries again.
func (c *Client) review(ctx context.Context, token attest.ServiceAccountToken) (authenticationv1.UserInfo, error) {
	if len(token) > maxToken {
		return authenticationv1.UserInfo{}, fmt.Errorf("%w: a service account token of %d bytes", attest.ErrUnauthenticated, len(token))
	}
	answer, err := c.reviewToken(ctx, &authenticationv1.TokenReview{
		Spec: authenticationv1.TokenReviewSpec{Token: token.Reveal(), Audiences: []string{Audience}},
	})
	if err != nil {
		return authenticationv1.UserInfo{}, fmt.Errorf("review a service account token: %w", err)
	}
	s := answer.Status
	switch {
	case !s.Authenticated:
		return s.User, fmt.Errorf("%w: the API server does not take the service account token for audience %q: %s", attest.ErrUnauthenticated, Audience, cleaned(s.Error))
	case len(s.Audiences) != 1 || s.Audiences[0] != Audience:
		return s.User, fmt.Errorf("%w: the service account token is for another audience than %q", attest.ErrUnauthenticated, Audience)
	}
	return s.User, nil
}

// cleaned cuts what the API server says of a token.
func cleaned(text string) string {
	if text == "" {
		return "no reason given"
	}
	return fmt.Sprintf("%.200q", text)
}

// serviceAccount takes system:serviceaccount:NAMESPACE:NAME apart.
func serviceAccount(user string) (namespace, name string, err error) {
	rest, ok := strings.CutPrefix(user, "system:serviceaccount:")
	namespace, name, ok2 := strings.Cut(rest, ":")
	if !ok || !ok2 {
		return "", "", fmt.Errorf("%w: the token is of user %.100q, which is no service account", attest.ErrDenied, user)
	}
	return namespace, name, nil
}

func first(values authenticationv1.ExtraValue) string {
	if len(values) == 0 {
		return ""
	}
	return values[0]
}
