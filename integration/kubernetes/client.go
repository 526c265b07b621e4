package kubernetes

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
)

// callTimeout bounds one request to the API server.
const callTimeout = 10 * time.Second

// Client is a connection to the API server for single objects.
type Client struct {
	core, authentication, coordination, networking, admission rest.Interface
}

// NewClient makes a client. It does not connect yet.
func NewClient(config *rest.Config) (*Client, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, authenticationv1.AddToScheme, coordinationv1.AddToScheme, networkingv1.AddToScheme, admissionregistrationv1.AddToScheme} {
		if err := add(scheme); err != nil {
			return nil, fmt.Errorf("client of the API server: %w", err)
		}
	}
	codecs := serializer.NewCodecFactory(scheme)
	c := new(Client)
	for _, group := range []struct {
		version schema.GroupVersion
		client  *rest.Interface
	}{
		{corev1.SchemeGroupVersion, &c.core},
		{authenticationv1.SchemeGroupVersion, &c.authentication},
		{coordinationv1.SchemeGroupVersion, &c.coordination},
		{networkingv1.SchemeGroupVersion, &c.networking},
		{admissionregistrationv1.SchemeGroupVersion, &c.admission},
	} {
		own := rest.CopyConfig(config)
		own.GroupVersion, own.NegotiatedSerializer = &group.version, codecs.WithoutConversion()
		own.APIPath = "/apis"
		if group.version.Group == "" {
			own.APIPath = "/api"
		}
		client, err := rest.RESTClientFor(own)
		if err != nil {
			return nil, fmt.Errorf("client of the API server for %s: %w", group.version, err)
		}
		*group.client = client
	}
	return c, nil
}

// ServiceCIDRs lists the ranges that the cluster gives Services addresses from.
func (c *Client) ServiceCIDRs(ctx context.Context) ([]netip.Prefix, error) {
	list := new(networkingv1.ServiceCIDRList)
	if err := c.networking.Get().Resource("servicecidrs").Timeout(callTimeout).Do(ctx).Into(list); err != nil {
		return nil, fmt.Errorf("list the ranges of Service addresses (ServiceCIDRs, since Kubernetes 1.33): %w; say them with --service-cidr", err)
	}
	var out []netip.Prefix
	for _, item := range list.Items {
		for _, text := range item.Spec.CIDRs {
			p, err := netip.ParsePrefix(text)
			if err != nil {
				return nil, fmt.Errorf("ServiceCIDR %s: %w", item.Name, err)
			}
			out = append(out, p)
		}
	}
	if len(out) == 0 {
		return nil, errors.New("the cluster has no ServiceCIDR; say the ranges of Service addresses with --service-cidr")
	}
	return out, nil
}

func (c *Client) getSecret(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
	out := new(corev1.Secret)
	return out, c.core.Get().Namespace(namespace).Resource("secrets").Name(name).Timeout(callTimeout).Do(ctx).Into(out)
}

func (c *Client) createSecret(ctx context.Context, s *corev1.Secret) (*corev1.Secret, error) {
	out := new(corev1.Secret)
	return out, c.core.Post().Namespace(s.Namespace).Resource("secrets").Timeout(callTimeout).Body(s).Do(ctx).Into(out)
}

func (c *Client) updateSecret(ctx context.Context, s *corev1.Secret) (*corev1.Secret, error) {
	out := new(corev1.Secret)
	return out, c.core.Put().Namespace(s.Namespace).Resource("secrets").Name(s.Name).Timeout(callTimeout).Body(s).Do(ctx).Into(out)
}

// NamespaceLabels gives the labels of a namespace as they are now.
func (c *Client) NamespaceLabels(ctx context.Context, name string) (map[string]string, error) {
	out := new(corev1.Namespace)
	if err := c.core.Get().Resource("namespaces").Name(name).Timeout(callTimeout).Do(ctx).Into(out); err != nil {
		return nil, fmt.Errorf("read namespace %s: %w", name, err)
	}
	return out.Labels, nil
}

// Secret gives the data of a Secret and the version that UpdateSecret wants; nil where
// there is none.
func (c *Client) Secret(ctx context.Context, namespace, name string) (data map[string][]byte, version string, err error) {
	s, err := c.getSecret(ctx, namespace, name)
	if apierrors.IsNotFound(err) {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", fmt.Errorf("read Secret %s/%s: %w", namespace, name, err)
	}
	return s.Data, s.ResourceVersion, nil
}

// ErrConflict is the kind of error of a write that somebody else's went before.
var ErrConflict = errors.New("written by somebody else meanwhile")

// UpdateSecret writes a Secret if its version is still the given one; "" = if there is none.
func (c *Client) UpdateSecret(ctx context.Context, namespace, name, version string, data map[string][]byte) error {
	s := &corev1.Secret{ObjectMeta: objectMeta(namespace, name), Data: data}
	write := c.createSecret
	if s.ResourceVersion = version; version != "" {
		write = c.updateSecret
	}
	_, err := write(ctx, s)
	if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) {
		err = ErrConflict
	}
	if err != nil {
		return fmt.Errorf("write Secret %s/%s: %w", namespace, name, err)
	}
	return nil
}

// Webhooks are the two kinds of webhook configurations.
const (
	MutatingWebhooks   = "mutatingwebhookconfigurations"
	ValidatingWebhooks = "validatingwebhookconfigurations"
)

// TrustWebhook makes the API server know the certificates of a webhook configuration by
// a bundle of CA certificates in PEM, and changes nothing else of it.
func (c *Client) TrustWebhook(ctx context.Context, kind, name string, bundle []byte) error {
	var current struct {
		Metadata metav1.ObjectMeta `json:"metadata"`
		Webhooks []struct {
			ClientConfig struct {
				CABundle []byte `json:"caBundle"`
			} `json:"clientConfig"`
		} `json:"webhooks"`
	}
	data, err := c.admission.Get().Resource(kind).Name(name).Timeout(callTimeout).Do(ctx).Raw()
	if err == nil {
		err = json.Unmarshal(data, &current)
	}
	if err != nil {
		return fmt.Errorf("read %s %s: %w", kind, name, err)
	}
	type step struct {
		Op    string `json:"op"`
		Path  string `json:"path"`
		Value any    `json:"value"`
	}
	patch := []step{{"test", "/metadata/resourceVersion", current.Metadata.ResourceVersion}}
	for i, w := range current.Webhooks {
		if !bytes.Equal(w.ClientConfig.CABundle, bundle) {
			patch = append(patch, step{"add", fmt.Sprintf("/webhooks/%d/clientConfig/caBundle", i), bundle})
		}
	}
	if len(patch) == 1 {
		return nil
	}
	if data, err = json.Marshal(patch); err == nil {
		err = c.admission.Patch(types.JSONPatchType).Resource(kind).Name(name).Timeout(callTimeout).Body(data).Do(ctx).Error()
	}
	if err != nil {
		return fmt.Errorf("write the certificate into %s %s: %w", kind, name, err)
	}
	return nil
}

func (c *Client) reviewToken(ctx context.Context, review *authenticationv1.TokenReview) (*authenticationv1.TokenReview, error) {
	out := new(authenticationv1.TokenReview)
	return out, c.authentication.Post().Resource("tokenreviews").Timeout(callTimeout).Body(review).Do(ctx).Into(out)
}

func (c *Client) getLease(ctx context.Context, namespace, name string) (*coordinationv1.Lease, error) {
	out := new(coordinationv1.Lease)
	return out, c.coordination.Get().Namespace(namespace).Resource("leases").Name(name).Timeout(callTimeout).Do(ctx).Into(out)
}

func (c *Client) writeLease(ctx context.Context, l *coordinationv1.Lease) (*coordinationv1.Lease, error) {
	out := new(coordinationv1.Lease)
	if l.ResourceVersion == "" {
		return out, c.coordination.Post().Namespace(l.Namespace).Resource("leases").Timeout(callTimeout).Body(l).Do(ctx).Into(out)
	}
	return out, c.coordination.Put().Namespace(l.Namespace).Resource("leases").Name(l.Name).Timeout(callTimeout).Body(l).Do(ctx).Into(out)
}

func objectMeta(namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace: namespace, Name: name,
		Labels: map[string]string{"app.kubernetes.io/part-of": "heddle"},
	}
}
