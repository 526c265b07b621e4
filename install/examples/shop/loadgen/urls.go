package main

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

// maxWeight bounds a URL's weight.
const maxWeight = 100

// urls is a round of calls: a URL stands in it as often as its weight says.
type urls []string

// String is for package flag.
func (u *urls) String() string { return strings.Join(*u, " ") }

// Set adds a URL, or WEIGHT*URL.
func (u *urls) Set(text string) error {
	weight := 1
	if before, after, ok := strings.Cut(text, "*"); ok {
		if n, err := strconv.Atoi(before); err == nil {
			if n < 1 || n > maxWeight {
				return fmt.Errorf("the weight is not from 1 to %d", maxWeight)
			}
			weight, text = n, after
		}
	}
	parsed, err := url.Parse(text)
	if err != nil {
		return err
	}
	if parsed.Scheme != "http" && parsed.Scheme != "https" || parsed.Host == "" {
		return fmt.Errorf("%q is not a URL that begins with http:// and a host", text)
	}
	for range weight {
		*u = append(*u, text)
	}
	return nil
}
