// The API's description, drawn. A token that is typed in is held by this page only and gone with it.
SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#reference",
  deepLinking: true,
  docExpansion: "list",
  validatorUrl: null,
  persistAuthorization: false,
  supportedSubmitMethods: ["get"],
});
