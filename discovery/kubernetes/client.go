package kubernetes

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
)

// Media types that are asked for. Protobuf has a third of JSON's bytes and of the time to
// read them; kinds that a CustomResourceDefinition makes have no other than JSON. Of
// nodes and namespaces we have no use for more than the meta data.
const (
	protobuf     = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	plainJSON    = runtime.ContentTypeJSON
	metadataOne  = protobufAs + "PartialObjectMetadata" + metaGroup + ",application/json;as=PartialObjectMetadata" + metaGroup
	metadataMany = protobufAs + "PartialObjectMetadataList" + metaGroup + ",application/json;as=PartialObjectMetadataList" + metaGroup

	protobufAs = runtime.ContentTypeProtobuf + ";as="
	metaGroup  = ";g=meta.k8s.io;v=v1"
)

// newClient makes a client that reads the types we watch, and no others.
func newClient(config *rest.Config) (rest.Interface, error) {
	scheme := runtime.NewScheme()
	core, discovery, networking := corev1.SchemeGroupVersion, discoveryv1.SchemeGroupVersion, networkingv1.SchemeGroupVersion
	scheme.AddKnownTypes(core, &corev1.Service{}, &corev1.ServiceList{}, &corev1.Pod{}, &corev1.PodList{}, &corev1.Secret{})
	scheme.AddKnownTypes(networking, &networkingv1.Ingress{}, &networkingv1.IngressList{})
	scheme.AddKnownTypes(discovery, &discoveryv1.EndpointSlice{}, &discoveryv1.EndpointSliceList{})
	if err := metav1.AddMetaToScheme(scheme); err != nil {
		return nil, fmt.Errorf("client of the API server: %w", err)
	}
	groups := map[schema.GroupVersion]bool{core: true, discovery: true, networking: true}
	for _, d := range documentKinds {
		groups[d.version] = true
		scheme.AddKnownTypeWithName(d.version.WithKind(string(d.kind)), &documentObject{})
		scheme.AddKnownTypeWithName(d.version.WithKind(string(d.kind)+"List"), &documentList{})
	}
	for g := range groups {
		metav1.AddToGroupVersion(scheme, g)
	}
	own := rest.CopyConfig(config)
	// Paths are given in full; the version is that of the parameters of lists and watches.
	own.GroupVersion, own.APIPath = &schema.GroupVersion{Version: "v1"}, "/"
	own.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	// The server's own priority and fairness keeps the peace; a start must not wait for us.
	own.QPS = -1
	client, err := rest.RESTClientFor(own)
	if err != nil {
		return nil, fmt.Errorf("client of the API server: %w", err)
	}
	return client, nil
}

// resource is one collection of the API server, and how its objects are read.
type resource struct {
	path      string // as /api/v1/pods
	one, many string // media types of an object and of a list
	list      func() runtime.Object
	convert   func(runtime.Object) any // what is kept of an object; nil: nothing
}

// item is what is kept of an object on its way from a reflector to a table.
type item struct {
	metav1.TypeMeta
	metav1.ObjectMeta // name, namespace and version only
	value             any
}

// DeepCopyObject implements runtime.Object. Items do not change.
func (i *item) DeepCopyObject() runtime.Object { return i }

// itemList is a page of items.
type itemList struct {
	metav1.TypeMeta
	metav1.ListMeta
	Items []*item
}

// DeepCopyObject implements runtime.Object. Lists do not change.
func (l *itemList) DeepCopyObject() runtime.Object { return l }

// keep gives what is kept of an object, as an item; of an item that is the item itself.
func (r *resource) keep(obj any) (any, error) {
	if i, ok := obj.(*item); ok {
		return i, nil
	}
	o, ok := obj.(runtime.Object)
	if !ok {
		return nil, fmt.Errorf("%s: the API server sent a %T", r.path, obj)
	}
	m, err := meta.Accessor(o)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.path, err)
	}
	return &item{
		ObjectMeta: metav1.ObjectMeta{Namespace: m.GetNamespace(), Name: m.GetName(), ResourceVersion: m.GetResourceVersion()},
		value:      r.convert(o),
	}, nil
}

func (r *resource) get(client rest.Interface, accept string, o metav1.ListOptions) *rest.Request {
	return client.Get().AbsPath(r.path).SetHeader("Accept", accept).VersionedParams(&o, metav1.ParameterCodec)
}

// page lists a page, and drops what is not kept of it.
func (r *resource) page(ctx context.Context, client rest.Interface, o metav1.ListOptions) (runtime.Object, error) {
	list := r.list()
	if err := r.get(client, r.many, o).Do(ctx).Into(list); err != nil {
		return nil, err
	}
	from, err := meta.ListAccessor(list)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.path, err)
	}
	out := &itemList{ListMeta: metav1.ListMeta{ResourceVersion: from.GetResourceVersion(),
		Continue: from.GetContinue(), RemainingItemCount: from.GetRemainingItemCount()}}
	err = meta.EachListItem(list, func(o runtime.Object) error {
		i, err := r.keep(o)
		if err == nil {
			out.Items = append(out.Items, i.(*item))
		}
		return err
	})
	return out, err
}

func (r *resource) watch(ctx context.Context, client rest.Interface, o metav1.ListOptions) (watch.Interface, error) {
	o.Watch = true
	return r.get(client, r.one, o).Watch(ctx)
}
