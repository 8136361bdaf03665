package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
)

// client speaks to the API from the node's network namespace.
func (c *cluster) client() *http.Client {
	return &http.Client{Timeout: patience, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, // kube-apiserver signs its own certificate
		DialContext: func(ctx context.Context, network, address string) (conn net.Conn, err error) {
			c.net.Do(func() { conn, err = new(net.Dialer).DialContext(ctx, network, address) })
			return conn, err
		},
	}}
}

// statusError is an answer of the API that is no success.
type statusError struct {
	code int
	text string
}

func (e *statusError) Error() string {
	return fmt.Sprintf("the API answered %d: %.500s", e.code, e.text)
}

// applied is YAML for PATCH, as `kubectl apply --server-side` sends it.
type applied []byte

// api sends an object, or YAML, and reads the answer into out, unless that is nil.
func (c *cluster) api(method, path string, object, out any) error {
	body, kind, err := encode(object)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(c.t.Context(), method, server+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+token)
	request.Header.Set("Content-Type", kind)
	answer, err := c.http.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if answer.StatusCode >= http.StatusMultipleChoices {
		return &statusError{answer.StatusCode, string(text)}
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(text, out)
}

func encode(object any) (body []byte, contentType string, err error) {
	switch o := object.(type) {
	case nil:
		return nil, "application/json", nil
	case []byte:
		return o, "application/yaml", nil
	case applied:
		return o, "application/apply-patch+yaml", nil
	}
	body, err = json.Marshal(object)
	return body, "application/json", err
}
