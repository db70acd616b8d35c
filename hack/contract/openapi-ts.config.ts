export default {
  input: '../../services/gateway/openapi.yaml',
  output: { path: 'gen/heyapi', importFileExtension: '.js' },
};
